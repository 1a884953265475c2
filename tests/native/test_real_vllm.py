"""Plain processes with real vLLM and the demo model: it answers, drains, comes back, and leaves nothing behind."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from engine.phases import LOADING, WARMING
from tests.native.conftest import Kit, end, get, make
from tests.support.engine_python import engine_python
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.native, pytest.mark.vllm]

READY_S = 400.0  # a bound for hangs on a busy machine with two cores
DEMO = ("--env", "env/models/demo.env")
# The start is what these tests repeat: without compiling it is a third as long.
EAGER = {"VLLM_ENFORCE_EAGER": "true"}


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """A copy that serves the demo model; the tests below are its life, in their order."""
    made = make(tmp_path_factory.mktemp("real"), engine_python().parents[1])
    yield made
    end(made)


def up(kit: Kit) -> None:
    done = kit.berth("up", "-d", *DEMO, timeout=READY_S, **EAGER)
    assert done.returncode == 0, done.stderr + (kit.root / ".berth/run/engine.log").read_text()[-4000:]


def workers(kit: Kit) -> list[int]:
    """What the engine has started, in the order of their births: its session without its leader."""
    engine = kit.state["children"]["engine"]["pid"]
    return sorted(pid for pid in kit.processes() if os.getsid(pid) == engine != pid)


def test_the_curl_line_that_up_prints_answers_in_english(kit: Kit) -> None:
    done = kit.berth("up", "-d", "--json", *DEMO, timeout=READY_S, **EAGER)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    curl = subprocess.run(["bash", "-c", facts["curl"] + " -s"], capture_output=True, text=True, check=True)
    answer = json.loads(curl.stdout)["choices"][0]["message"]["content"]
    assert "neural network" in answer.lower(), answer
    assert kit.berth("chat", "What is Deep Learning?").stdout.strip() == answer.strip()


def test_a_killed_worker_process_ends_in_a_new_engine_and_503_meanwhile(kit: Kit) -> None:
    first = workers(kit)
    os.kill(first[-1], signal.SIGKILL)
    wait_until(lambda: get(f"{kit.service}/ready")[0] == 503, 60, "503 from the service")
    wait_until(lambda: kit.state["children"]["engine"]["restarts"] == 1, 120, "a restart")
    said = []

    def back() -> bool:
        status, body = get(f"{kit.service}/ready")
        said.append((body or {}).get("doing", {}).get("name"))
        return status == 200

    wait_until(back, READY_S, "the engine's return")
    assert not set(first) & kit.processes().keys()
    assert {LOADING, WARMING} & set(said), "meanwhile it is said what the new one does"


def test_down_lets_a_running_answer_finish_and_leaves_no_process(kit: Kit) -> None:
    body = {
        "messages": [{"role": "user", "content": "Who are you?"}],
        "max_tokens": 400,
        "stream": True,
        "ignore_eos": True,
    }
    url = f"{kit.service}/v1/chat/completions"
    with httpx.Client(timeout=120, trust_env=False) as client, client.stream("POST", url, json=body) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        next(lines)
        down = subprocess.Popen(kit.command("down"), cwd=kit.root, env=kit.environ)
        rest = list(lines)
    assert rest[-1] == "data: [DONE]"
    reasons = [json.loads(line[6:])["choices"][0]["finish_reason"] for line in rest[:-1] if '"finish_reason":"' in line]
    assert reasons == ["length"]
    assert down.wait(120) == 0
    assert kit.gone(), kit.processes()


def test_a_killed_supervisor_takes_the_engine_and_its_workers_with_it(kit: Kit) -> None:
    up(kit)
    assert workers(kit)
    os.kill(kit.state["pid"], signal.SIGKILL)
    wait_until(kit.gone, 120, "the end of all processes")
    assert kit.berth("status").returncode == 1
