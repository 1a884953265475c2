"""`berth batch --runtime slurm`: an array shares the requests, is killed, and goes on. vLLM is a stand-in."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.slurm.operators import DEMO, SCRATCH, Operator
from tests.support.slurm import Checkout, Lab, User
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slurm

LINES = 300
HERE = f"{SCRATCH}/batch"


@pytest.fixture(scope="module")
def operator(cluster: Lab, alice: User, checkout: Checkout, stub_sif: str) -> Iterator[Operator]:
    """alice, with requests in a folder of their own; the last one is no request."""
    one = Operator(cluster, alice, checkout, stub_sif)
    one.prepare()
    one.site()
    one.user("bash", "-c", 'rm -rf "$0" "$1"; mkdir -p "$0"', HERE, f"{SCRATCH}/berth/batches")
    body = {"messages": [{"role": "user", "content": "Why?"}]}
    rows = [
        {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number in range(LINES)
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows) + "none\n"
    one.user("bash", "-c", 'cat >"$0"', f"{HERE}/in.jsonl", stdin=text)
    yield one
    one.clear()


def answered(operator: Operator) -> int:
    folders = operator.lab.outside(f"{SCRATCH}/berth/batches")
    return sum(path.read_bytes().count(b"\n") for path in folders.glob("*/answers-*-of-*.jsonl"))


def test_an_array_that_is_killed_goes_on_until_every_request_has_one_answer(operator: Operator) -> None:
    slow = operator.settings("slow", OFFLINE_SECONDS="0.3", OFFLINE_AT_ONCE="4")
    words = ("batch", f"{HERE}/in.jsonl", "-o", f"{HERE}/out.jsonl", *DEMO, "--env", slow, "--replicas", "2")
    with operator.begin(*words) as first:
        first.wait_for("submitted: job")
        job = re.findall(r"submitted: job (\d+)", first.output)[0]
        wait_until(lambda: answered(operator) >= 20, 120, "some answers")
        operator.user.cancel(job)
        first.wait_for("the same command goes on")
    kept = answered(operator)
    assert 20 <= kept < LINES
    done = operator.berth(*words, "--json", timeout=300)
    assert done.returncode == 1, done.stderr  # one line is no request
    said = json.loads(done.stdout)
    assert (said["answered"], said["failed"]) == (LINES, 1)
    rows = [json.loads(row) for row in operator.user.say("cat", f"{HERE}/out.jsonl").splitlines()]
    assert [row["custom_id"] for row in rows] == [f"r{number}" for number in range(LINES)]
    assert "not JSON" in operator.user.say("cat", f"{HERE}/out.errors.jsonl")
    assert "every request is done already" in operator.berth(*words).stderr
    assert operator.user.say("ls", f"{SCRATCH}/berth/batches") == ""
