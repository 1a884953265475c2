"""A follower ends when its head has, and its own end is no success."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from engine import follower

_FOLLOW = """
import sys, time
from engine import follower
print("follows", flush=True)
sys.exit(follower.run(lambda: time.sleep(float(sys.argv[1])), sys.argv[2:]))
"""


def follow(seconds: float, port: int) -> "subprocess.Popen[str]":
    environ = {**os.environ, "PYTHONPATH": str(Path(follower.__file__).parents[1])}
    words = [str(seconds), "vllm", "serve", "--headless", "--master-addr", "127.0.0.1", f"--master-port={port}"]
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _FOLLOW, *words],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_ends_when_the_head_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        process = follow(600, head.getsockname()[1])
        head.settimeout(60)
        connection, _ = head.accept()
    connection.close()
    _, said = process.communicate(timeout=60)
    assert "the head of this deployment, 127.0.0.1, has ended" in said
    assert process.returncode != 0  # the signal that vLLM would have made a clean end of


def test_it_waits_for_a_head_that_is_not_there_yet() -> None:
    with socket.socket() as later:
        later.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        later.bind(("127.0.0.1", 0))
        process = follow(600, later.getsockname()[1])
        assert process.stdout is not None
        assert process.stdout.readline() == "follows\n"
        later.listen()
        later.settimeout(60)
        connection, _ = later.accept()
        assert process.poll() is None
        connection.close()
    process.communicate(timeout=60)


def test_an_engine_that_ends_by_itself_has_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        process = follow(0, head.getsockname()[1])
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "berth: error: a worker of the engine on this node has died" in said


def test_only_headless_commands_follow() -> None:
    assert follower.is_one(["vllm", "serve", "--headless"])
    assert not follower.is_one(["vllm", "serve", "--uds", "s"])


def test_only_the_workers_below_this_process_are_its_own(tmp_path: Path) -> None:
    told = {10: ("python", 1), 11: ("fork server", 10), 12: ("VLLM::Worker_TP", 11), 13: ("VLLM::Worker_TP", 1)}
    for pid, (name, parent) in told.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 1 1")
    (tmp_path / "14").mkdir()
    assert follower.workers_below(10, tmp_path) == [12]
