"""The stand-in for vLLM that the cluster's tests use behaves as they take it to."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.unix_http import UnixConnection
from tests.support.slurm import ROOT
from tests.support.waiting import free_port, wait_until

BOUND_S = 60.0  # for hangs
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start("--uds", path, STUB_…="…")` runs `vllm serve demo …`; what still runs in the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def begin(*words: str, **environ: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.support.stub_vllm", "serve", "demo", *words]
        environ = {**os.environ, "STUB_LOAD_SECONDS": "0", **environ}
        running.append(subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def status(socket: Path, path: str) -> int:
    """The status of a GET; 0 where nothing listens."""
    connection = UnixConnection(str(socket), BOUND_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def two_nodes(start: Start, socket: Path) -> "tuple[subprocess.Popen[str], subprocess.Popen[str]]":
    """A head and its follower, once they serve."""
    shared = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    head = start("--uds", str(socket), "--node-rank", "0", *shared)
    follower = start("--headless", "--node-rank", "1", *shared)
    wait_until(lambda: status(socket, "/health") == 200, BOUND_S, "the two ranks serving")
    return head, follower


def test_it_serves_on_a_socket_and_ends_with_0_on_sigterm(start: Start, tmp_path: Path) -> None:
    server = start("--uds", str(tmp_path / "s"), "--served-model-name", "demo", VLLM_API_KEY="key")
    wait_until(lambda: status(tmp_path / "s", "/health") == 200, BOUND_S, "the stub serving")
    assert (status(tmp_path / "s", "/v1/models"), status(tmp_path / "s", "/metrics")) == (401, 200)
    server.send_signal(signal.SIGTERM)
    assert server.wait(BOUND_S) == 0


def test_a_follower_that_dies_ends_the_head_and_an_end_of_the_head_ends_the_follower(
    start: Start, tmp_path: Path
) -> None:
    head, follower = two_nodes(start, tmp_path / "a")
    follower.kill()
    assert head.wait(BOUND_S) == 1
    head, follower = two_nodes(start, tmp_path / "b")
    head.send_signal(signal.SIGTERM)
    assert (head.wait(BOUND_S), follower.wait(BOUND_S)) == (0, 0)


def test_a_failure_that_is_asked_for_has_its_words_and_its_code(start: Start) -> None:
    _, said = start(STUB_SAY="first\\nsecond", STUB_EXIT="3").communicate(timeout=BOUND_S)
    assert "first\nsecond\n" in said
