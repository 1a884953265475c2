"""Real vLLM through the launcher: it answers, its processes share one import, and it stops as it should."""

import http.client
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_python import ROOT, engine_python
from tests.support.waiting import free_port, wait_until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Who are you?"}], "ignore_eos": True}


@dataclass
class Engine:
    """A running engine, and what it wrote."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    finished: list[str] = field(default_factory=list)

    @contextmanager
    def request(self, path: str, body: dict[str, Any] | None = None) -> Iterator[http.client.HTTPResponse]:
        """POST `body`, or GET where there is none."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            text = json.dumps(body) if body else None
            connection.request("POST" if body else "GET", path, text, {"Content-Type": "application/json"})
            with closing(connection.getresponse()) as reply:
                yield reply

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            with self.request("/health") as reply:
                return reply.status == 200
        except (OSError, http.client.HTTPException):
            return False

    def members(self) -> dict[int, int]:
        """Processes of the engine's session that still run, each with its parent."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, parent, _, session = entry.read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == self.process.pid and state != "Z":
                found[int(entry.parent.name)] = int(parent)
        return found


@contextmanager
def serving(directory: Path) -> Iterator[Engine]:
    """The demo model, not compiled: what is tested here does not depend on it."""
    port = free_port()
    log = directory / "engine.log"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "PYTHONPATH": str(ROOT),
        "LLM_VLLM_MODEL_NAME": "demo",
        "LLM_DEVICE": "cpu",
        "LLM_VLLM_PORT": str(port),
        "VLLM_ENFORCE_EAGER": "true",
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [engine_python(), "-P", "-m", "engine.serve"],
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Engine(process, port, log)
    try:
        wait_until(running.is_ready, 600, "the engine is ready", interval=0.5)
        yield running
    finally:
        for pid in running.members():
            os.kill(pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One for the tests in their order; the second ends it."""
    with serving(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Engine]:
    """Another, to be killed."""
    with serving(tmp_path) as running:
        yield running


def stream(engine: Engine, begun: threading.Event) -> None:
    with engine.request("/v1/chat/completions", {**CHAT, "stream": True, "max_tokens": 400}) as reply:
        for line in reply:
            if line.startswith(b"data: {"):
                (choice,) = json.loads(line[6:])["choices"]
                if choice["delta"].get("content"):
                    begun.set()
                if choice["finish_reason"]:
                    engine.finished.append(choice["finish_reason"])


def test_decisions_and_no_probes_are_in_the_log(engine: Engine) -> None:
    with engine.request("/v1/models") as reply:
        assert reply.status == 200
    with engine.request("/v1/chat/completions", {**CHAT, "max_tokens": 4}) as reply:
        assert json.load(reply)["usage"]["completion_tokens"] == 4
    log = wait_until(lambda: text if "chat/completions HTTP" in (text := engine.log.read_text()) else "", 30, "a line")
    assert "GET /health" not in log
    assert "GET /v1/models" not in log
    assert "Unknown vLLM environment variable" not in log
    assert "berth: --shutdown-timeout 60 (" in log


def test_a_signal_lets_streams_finish_and_leaves_nothing_behind(engine: Engine) -> None:
    begun = [threading.Event() for _ in range(4)]
    clients = [threading.Thread(target=stream, args=(engine, event)) for event in begun]
    for client in clients:
        client.start()
    for event in begun:
        assert event.wait(120)
    engine.process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join(120)
    assert engine.finished == ["length"] * 4
    assert engine.process.wait(60) == 0
    wait_until(lambda: not engine.members(), 30, "every process of the engine is gone")


def test_the_processes_share_one_import_and_none_outlives_the_server(doomed: Engine) -> None:
    if "forked after one import" not in doomed.log.read_text():
        pytest.skip("no Intel OpenMP in this environment, so vLLM starts its processes anew")
    parents = doomed.members()
    server = doomed.process.pid
    forked = [pid for pid, parent in parents.items() if parent != server and pid != server]
    assert len(forked) >= 2, "the engine and its worker come from the fork server"
    assert all(parents[parents[pid]] == server for pid in forked)
    os.kill(server, signal.SIGKILL)
    doomed.process.wait()
    wait_until(lambda: not doomed.members(), 60, "every process of the engine is gone")
