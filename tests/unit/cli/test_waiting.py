"""Waiting for readiness: phases from the log and the cache, and the engine's own words when it fails."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from berth import waiting
from berth.errors import BerthError, Problem
from berth.progress import Progress
from berth.runtimes import Endpoint
from engine.phases import Phase
from tests.support.waiting import free_port
from tests.unit.cli.conftest import Resolve

NOBODY = "http://127.0.0.1:1"


class Door(http.server.BaseHTTPRequestHandler):
    """A service whose /ready walks through the states that a test lists, and stays at the last."""

    states: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        body = json.dumps({"state": state, "models": ["m"] if state == "ready" else []}).encode()
        self.send_response(200 if state == "ready" else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(waiting, "POLL_S", 0.01)
    monkeypatch.setattr(waiting, "DOWNLOAD_POLL_S", 0.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class FakeRuntime:
    """An engine that says its lines at once and may have failed."""

    name = "fake"

    def __init__(self, lines: list[str], problem: Problem | None = None, bytes_here: int | None = None) -> None:
        self.lines, self.problem, self.bytes_here = lines, problem, bytes_here

    def logs(self, *_: Any, **__: Any) -> Iterator[str]:
        return iter(self.lines)

    def failure(self) -> Problem | None:
        return self.problem

    def has_model(self, _: Any) -> bool:
        return self.bytes_here is None

    def downloaded(self, _: Any) -> int | None:
        return self.bytes_here


class Shown(Progress):
    """Keeps what was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.phases: list[Phase] = []

    def show(self, phase: Phase) -> None:
        self.phases.append(phase)


def wait(runtime: FakeRuntime, resolve: Resolve, url: str, shown: Progress, timeout: float = 30) -> list[str]:
    deployment = resolve("env/cpu.env", shell={"HF_HUB_OFFLINE": "1"})
    where = Endpoint(url, NOBODY)
    return waiting.until_ready(runtime, deployment, where, shown, timeout)  # type: ignore[arg-type]


def test_ready_means_that_the_service_says_so(door: str, resolve: Resolve) -> None:
    Door.states, shown = ["starting", "loading", "ready"], Shown()
    assert wait(FakeRuntime(["Application startup complete."]), resolve, door, shown) == ["m"]
    assert [phase.name for phase in shown.phases][-1] == "ready"
    assert len(shown.phases) == 3


def test_a_download_shows_as_bytes_until_the_engine_goes_on(door: str, resolve: Resolve) -> None:
    Door.states, shown = ["starting", "starting", "ready"], Shown()
    wait(FakeRuntime(["berth: x (y)"], bytes_here=2_500_000_000), resolve, door, shown)
    assert Phase("downloading the model", None, "2.50 GB") in shown.phases


def test_an_engine_that_failed_is_explained_by_the_first_cause(
    door: str, resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "RUN", tmp_path)
    monkeypatch.setattr(waiting, "FAILED_LOG", tmp_path / "failed.log")
    Door.states = ["starting"]
    lines = [
        "(Worker pid=4) ERROR 11-21 07:00:04 [a.py:1] kernels.StrangeError: tried to allocate 2 GiB",
        "(EngineCore pid=3) ERROR 11-21 07:00:05 [b.py:2] Exception: WorkerProc initialization failed",
        "(APIServer pid=2) RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    with pytest.raises(BerthError) as caught:
        wait(FakeRuntime(lines, Problem("the engine ended", "")), resolve, door, Shown())
    (problem,) = caught.value.problems
    assert problem.sentence == "the engine ended: kernels.StrangeError: tried to allocate 2 GiB"
    assert (tmp_path / "failed.log").read_text().splitlines() == lines


def test_a_known_failure_comes_with_its_remedy(
    door: str, resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "RUN", tmp_path)
    monkeypatch.setattr(waiting, "FAILED_LOG", tmp_path / "failed.log")
    Door.states = ["starting"]
    lines = ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."]
    with pytest.raises(BerthError, match="memory of a GPU is used up") as caught:
        wait(FakeRuntime(lines, Problem("the engine ended", "")), resolve, door, Shown())
    assert "VLLM_TP_SIZE" in caught.value.problems[0].hint


def test_a_setting_that_the_model_refuses_is_said_in_one_sentence(
    door: str, resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "RUN", tmp_path)
    monkeypatch.setattr(waiting, "FAILED_LOG", tmp_path / "failed.log")
    Door.states = ["starting"]
    lines = [
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "  Value error, User-specified max_model_len (4096) is greater than 2048. To allow overriding, set the env var",
        "    For further information visit https://errors.pydantic.dev",
    ]
    with pytest.raises(
        BerthError, match=r"ended: Value error, User-specified max_model_len \(4096\) is greater than 2048$"
    ):
        wait(FakeRuntime(lines, Problem("the engine ended", "")), resolve, door, Shown())


def test_too_long_is_exit_code_4_with_the_last_phase(door: str, resolve: Resolve) -> None:
    Door.states = ["loading"]
    with pytest.raises(BerthError, match="the last phase was: ") as caught:
        wait(FakeRuntime(["Starting to load model"]), resolve, door, Shown(), timeout=0.2)
    assert caught.value.exit_code == 4


def test_a_service_that_is_not_there_counts_as_starting() -> None:
    assert waiting.service_state(Endpoint(f"http://127.0.0.1:{free_port()}", NOBODY))["state"] == "starting"


class Locked(http.server.BaseHTTPRequestHandler):
    """A service that asks for a key."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_behind_a_service_that_asks_for_a_key_the_engine_itself_is_asked(door: str) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        locked = f"http://127.0.0.1:{server.server_address[1]}"
        Door.states = ["ready"]
        assert waiting.service_state(Endpoint(locked, door))["state"] == "ready"
        Door.states = ["failed"]
        assert waiting.service_state(Endpoint(locked, door))["state"] == "failed"
        assert waiting.service_state(Endpoint(locked, f"http://127.0.0.1:{free_port()}"))["state"] == "starting"
        server.shutdown()
