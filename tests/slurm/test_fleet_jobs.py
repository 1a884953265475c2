"""Many jobs on the lab's cluster: past the walltime, after a node failure, replicas, fleet files, cost, leftovers.

The keep-alive test spans three minutes and as many jobs, so its client asks while the other tests run.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.slurm.fleets import SCRATCH, Client, Fleet
from tests.support.slurm import ROOT, Checkout, Lab, User
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def fleet(cluster: Lab, alice: User, checkout: Checkout, stub_sif: str) -> Iterator[Fleet]:
    """A store of these tests' own; its jobs are ended when they are done."""
    made = Fleet.make(cluster, alice, checkout, stub_sif)
    yield made
    made.end()


@dataclass
class Kept:
    """A deployment that lives longer than its walltime, and what a client saw of it in the meantime."""

    jobs: list[str]
    seen: "Future[tuple[list[str], list[dict[str, Any]]]]"


@pytest.fixture(scope="module")
def kept(fleet: Fleet) -> Iterator[Kept]:
    """Jobs of three minutes, each of which starts a minute after the one before it, and a client that never rests.

    It asks until the first walltime is over and two jobs have handed over; then it is left at that.
    """
    up = fleet.up("kept", "--time", "3m", "--keep-alive", "12m")
    first, second, *_ = up["jobs"]

    def watch(client: Client) -> tuple[list[str], list[dict[str, Any]]]:
        ends = fleet.endpoint("kept", first)["ends"]
        wait_until(lambda: time.time() > ends + 5, 300, "the first walltime's end", 0.5)
        fleet.wait_for("kept", second, "stopped", timeout=300)
        states = [fleet.endpoint("kept", job).get("state", "") for job in up["jobs"]]
        return states, client.stop()

    with ThreadPoolExecutor(1) as pool, fleet.client(up["url"], up["key_file"]) as client:
        yield Kept(up["jobs"], pool.submit(watch, client))


@pytest.fixture(scope="module")
def requeued(fleet: Fleet) -> str:
    """A job on n3, whose node fails as by a power cut: it is started anew on a node that is left.

    On n3 it would meet what the controller still has to say to its first life there: the lab requeues without the two
    minutes that Slurm usually waits.
    """
    up = fleet.up("requeued", "--time", "10m", site="n3.env")
    (job,) = up["jobs"]
    with fleet.client(up["url"], up["key_file"]) as client:
        wait_until(lambda: fleet.endpoint("requeued", job)["watch"].get("generation_tokens", 0) > 0, 60, "tokens")
        client.stop()
    fleet.lab.node_stops("n3")
    try:
        wait_until(lambda: fleet.alice.state(job) == "PENDING", 90, f"job {job} in the queue again", 1.0)
        fleet.alice("scontrol", "update", f"JobId={job}", "ReqNodeList=n2")
        again = wait_until(lambda: _second_life(fleet, job), 180, "its second life", 0.5)
    finally:
        fleet.lab.node_returns("n3")
    assert again["node"] == "n2"
    return job


def _second_life(fleet: Fleet, job: str) -> dict[str, Any]:
    said = fleet.endpoint("requeued", job)
    return said if (said["restarts"], said["state"]) == (1, "ready") else {}


def test_successors_are_in_the_queue_from_the_start(fleet: Fleet, kept: Kept) -> None:
    first, second, *_ = kept.jobs
    assert len(kept.jobs) == 10
    shown = fleet.alice.say("scontrol", "show", "job", second)
    assert f"after:{first}+1" in shown
    assert "TimeLimit=00:03:00" in shown
    rows = [row for row in fleet.ls() if row["name"] == "kept"]
    assert {row["state"] for row in rows} <= {"ready", "queued", "starting"}


def test_replicas_share_the_requests_and_each_is_shown(fleet: Fleet, kept: Kept) -> None:
    up = fleet.up("twice", "--time", "10m", "--replicas", "2")
    (job,) = up["jobs"]
    for task in ("0", "1"):
        fleet.wait_for("twice", f"{job}_{task}")
    with fleet.client(up["url"], up["key_file"]) as client:

        def both() -> bool:
            said = [fleet.endpoint("twice", f"{job}_{task}")["watch"] for task in (0, 1)]
            return all(each.get("generation_tokens", 0) > 0 for each in said)

        wait_until(both, 60, "tokens of both replicas")
        assert [answer for answer in client.stop() if answer["wrong"]] == []
    rows = [row for row in fleet.ls() if row["name"] == "twice"]
    assert sorted(row["job"] for row in rows) == [f"{job}_0", f"{job}_1"]
    # One of them goes: nobody notices.
    with fleet.client(up["url"], up["key_file"]) as client:
        fleet.alice("scancel", "--signal=TERM", "--batch", f"{job}_0")
        fleet.wait_for("twice", f"{job}_0", "stopped")
        assert [answer for answer in client.stop() if answer["wrong"]] == []


def test_a_file_of_deployments_is_submitted_whole(fleet: Fleet) -> None:
    one = '[[deployment]]\nname = "{}"\nenv = ["env/cpu.env", "env/models/demo.env"]\ntime = "{}"\n'
    file = f"{SCRATCH}/fleet.toml"
    fleet.names += ["many-a", "many-b"]
    fleet.alice("bash", "-c", 'cat >"$0"', file, stdin=one.format("many-a", "5m") + one.format("many-b", "5h"))
    refused = fleet.checkout.berth(
        fleet.alice, "launch-many", file, environ={"BERTH_SITE": f"{SCRATCH}/site.env"}, check=False
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "deployment 2 (many-b): --time: 5h is more than partition cpu allows (1h)" in refused.stderr
    assert "berth-many" not in fleet.alice.say("squeue", "--format=%j")

    fleet.alice("bash", "-c", 'cat >"$0"', file, stdin=one.format("many-a", "5m") + one.format("many-b", "6m"))
    told = fleet.berth("launch-many", file)["deployments"]
    assert [one["name"] for one in told] == ["many-a", "many-b"]
    for one in told:
        fleet.wait_for(one["name"], one["jobs"][0])


def test_a_job_comes_back_by_itself_after_its_node_failed(fleet: Fleet, requeued: str) -> None:
    connected = fleet.berth("connect", "requeued", "-d", site="n3.env")
    with fleet.client(connected["url"], connected["key_file"]) as client:
        wait_until(lambda: client.started.output.count("\n") >= 5, 30, "five answers")
        assert [answer for answer in client.stop() if answer["wrong"]] == []


def test_cost_is_what_slurm_counted_with_both_lives_of_a_requeued_job(fleet: Fleet, requeued: str) -> None:
    def lives() -> list[list[str]]:
        said = fleet.alice.say("sacct", "-X", "-n", "-P", "-D", "-j", requeued, "--format=ElapsedRaw,AllocCPUS,State")
        return [line.split("|") for line in said.splitlines()]

    assert len(lives()) == 2
    (use,) = fleet.berth("cost", "requeued", "--price", "2")["jobs"]
    counted = sum(int(elapsed) * int(cpus) for elapsed, cpus, _ in lives()) / 3600
    assert use["unit"] == "CPU"
    assert counted - 60 / 3600 <= use["unit_hours"] <= counted
    assert use["price"] == pytest.approx(2 * use["unit_hours"], abs=0.001)
    # Tokens of the life that the node failure ended are counted too.
    before = use["generation_tokens"]
    assert before > 0
    assert use["tokens_per_unit_hour"] > 0


def test_gc_lists_what_a_killed_job_left_and_deletes_it_when_told(fleet: Fleet, requeued: str) -> None:
    up = fleet.up("killed", "--time", "10m")
    (job,) = up["jobs"]
    fleet.alice("scancel", "--signal=KILL", "--batch", job)
    fleet.alice.wait_until_ended(job)
    fleet.berth("stop", "requeued", site="n3.env")
    fleet.alice.wait_until_ended(requeued)
    # What 90 silent seconds and some days would do.
    said = {**fleet.endpoint("killed", job), "heartbeat": time.time() - 100}
    assert said["state"] == "ready"
    path = f"{fleet.run('killed', job)}/endpoint.json"
    fleet.alice("bash", "-c", 'cat >"$0"', path, stdin=json.dumps(said))
    fleet.alice("find", f"{SCRATCH}/berth/deployments/requeued", "-exec", "touch", "-h", "-d", "9 days ago", "{}", "+")

    def listed() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for each in fleet.berth("gc")["leftovers"]:
            found.setdefault(each["kind"], []).append(each["where"])
        return found

    wait_until(lambda: "connection" in listed(), 30, "the connection of a killed job being closed", 1.0)
    first = listed()
    scratch = " ".join(first["scratch"])
    assert f":/tmp/berth-1001-{job}." in scratch
    assert f"n3:/tmp/berth-1001-{requeued}." in scratch
    assert first["endpoint"] == [path]
    assert first["deployment"] == [f"{SCRATCH}/berth/deployments/requeued"]
    assert "deployments/kept" not in json.dumps(first)

    told = fleet.berth("gc", "--yes")
    assert (told["deleted"], told["notes"]) == (True, [])
    assert listed() == {}
    assert fleet.endpoint("killed", job)["state"] == "failed"
    for place in first["scratch"]:
        node, _, directory = place.partition(":")
        assert fleet.alice("test", "-e", directory, node=node, check=False).returncode == 1


def test_python_has_the_verbs_of_the_command_line(fleet: Fleet) -> None:
    example = (ROOT / "docs" / "python-api.md").read_text().partition("```python\n")[2].partition("```")[0]
    code = example.replace('name="demo"', 'name="python"')
    assert code != example
    told = fleet.alice(
        f"{fleet.checkout.path}/.berth/venv/bin/python",
        "-c",
        code,
        cwd=fleet.checkout.path,
        environ={"BERTH_SITE": f"{SCRATCH}/site.env"},
    )
    first, *rest = told.stdout.splitlines()
    assert first.startswith("http://127.0.0.1:")
    assert [line for line in rest if line.startswith("python ready ")] != []
    assert told.stderr == ""
    assert [row["state"] for row in fleet.ls() if row["name"] == "python"] == ["stopped"]


def test_no_request_fails_across_walltimes(fleet: Fleet, kept: Kept) -> None:
    states, answers = kept.seen.result(timeout=600)
    assert [answer for answer in answers if answer["wrong"]] == []
    assert len(answers) > 600  # five a second for three minutes
    assert states[:2] == ["stopped", "stopped"]
    assert "ready" in states[2:]
    for job in kept.jobs[:2]:
        assert fleet.endpoint("kept", job)["watch"]["generation_tokens"] > 0
