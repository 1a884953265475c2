"""What the supervisor does when something dies."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.native.conftest import START_S, Kit, get
from tests.native.test_up_and_down import DEMO, ready
from tests.support.waiting import wait_until

pytestmark = pytest.mark.native


def child(kit: Kit, name: str) -> dict[str, object]:
    facts: dict[str, object] = kit.state["children"][name]
    return facts


def pid(kit: Kit, name: str) -> int:
    return int(str(child(kit, name)["pid"]))


def test_a_killed_engine_is_started_again_and_the_service_says_503_meanwhile(kit: Kit) -> None:
    kit.fake(stubborn=True)
    kit.berth("up", "-d", *DEMO)
    first = pid(kit, "engine")
    workers = [number for number, words in kit.processes().items() if "worker of" in words]
    kit.fake(silent=True)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: get(f"{kit.service}/ready")[0] == 503, START_S, "503 from the service")
    assert get(f"{kit.service}/health")[0] == 200
    assert kit.berth("status").returncode == 4
    wait_until(lambda: child(kit, "engine")["pid"] not in (None, first), START_S, "another engine")
    assert not set(workers) & kit.processes().keys(), "a worker of the killed engine is left"
    kit.fake()
    os.kill(pid(kit, "engine"), signal.SIGKILL)
    wait_until(lambda: ready(kit), START_S, "the engine's return")
    assert child(kit, "engine")["restarts"] == 2
    assert kit.berth("down").returncode == 0
    assert kit.gone(), kit.processes()


def test_the_wait_before_a_restart_grows_until_the_engine_is_ready_again(kit: Kit) -> None:
    kit.berth("up", "-d", *DEMO)
    kit.fake(exit=1)
    os.kill(pid(kit, "engine"), signal.SIGKILL)
    log = kit.root / ".berth/run/engine.log"
    wait_until(lambda: "next start in 4 s" in log.read_text(), START_S, "the third restart")
    assert re.findall(r"next start in (\d+) s", log.read_text()) == ["1", "2", "4"]
    assert kit.berth("down").returncode == 0
    assert kit.gone(), kit.processes()


def test_a_killed_service_is_started_again_while_the_engine_goes_on(kit: Kit) -> None:
    kit.berth("up", "-d", *DEMO)
    engine = pid(kit, "engine")
    os.kill(pid(kit, "llm"), signal.SIGKILL)
    wait_until(lambda: child(kit, "llm")["restarts"] == 1 and ready(kit), START_S, "the service's return")
    assert pid(kit, "engine") == engine
    kit.berth("down")


def test_a_killed_supervisor_leaves_nothing_and_blocks_nothing(kit: Kit) -> None:
    kit.fake(stubborn=True)
    kit.berth("up", "-d", *DEMO)
    os.kill(kit.state["pid"], signal.SIGKILL)
    wait_until(lambda: kit.berth("status").returncode == 1, START_S, "status: stopped")
    assert kit.berth("up", "-d", *DEMO).returncode == 0
    assert kit.berth("down").returncode == 0
    assert kit.gone(), kit.processes()


def test_down_after_a_killed_supervisor_ends_what_ignored_its_death(kit: Kit) -> None:
    kit.fake(deaf=True)
    kit.berth("up", "-d", *DEMO)
    engine = pid(kit, "engine")
    os.kill(kit.state["pid"], signal.SIGKILL)
    wait_until(lambda: kit.berth("status").returncode == 1, START_S, "status: stopped")
    assert engine in kit.processes()
    assert kit.berth("down").stdout == "stopped\n"
    wait_until(kit.gone, START_S, "the end of all processes")


def test_state_left_by_another_time_does_no_harm(kit: Kit) -> None:
    run = kit.root / ".berth/run"
    run.mkdir(parents=True)
    (run / "lock").touch()
    mine, boot = os.getpid(), Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (run / "state.json").write_text(
        json.dumps({"pid": mine, "boot": boot, "state": "running", "children": {"engine": {"pid": mine, "born": 1}}})
    )
    (run / "plan.json").write_text("torn {")
    assert kit.berth("status").returncode == 1
    assert kit.berth("down").stdout == "nothing was running\n"
    assert kit.berth("up", "-d", *DEMO).returncode == 0
    assert kit.berth("down").returncode == 0


def test_two_ups_at_once_give_one_deployment(kit: Kit) -> None:
    both = [kit.begin("up", "-d", *DEMO) for _ in range(2)]
    codes = sorted(process.wait(START_S) for process in both)
    assert codes[0] == 0
    assert ready(kit)
    assert kit.berth("down").returncode == 0
    assert kit.gone(), kit.processes()


def test_logs_are_those_of_both_parts(kit: Kit) -> None:
    kit.berth("up", "-d", *DEMO)
    both = kit.berth("logs").stdout
    assert "engine | berth: stub engine (a test)" in both
    assert "llm    | " in both
    assert kit.berth("logs", "engine", "-n", "1").stdout == "berth: stub engine (a test)\n"
    assert kit.berth("logs", "nope").returncode == 2
    kit.berth("down")


def test_chat_prints_the_answer(kit: Kit) -> None:
    kit.berth("up", "-d", *DEMO)
    assert kit.berth("chat", "What is Deep Learning?").stdout == (
        "Deep learning isn't magic: it fits many layers to data.\n\n"
    )
    kit.berth("down")
    assert kit.berth("chat", "Hello?").returncode == 3
