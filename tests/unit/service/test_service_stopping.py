"""Stopping: what runs finishes, what comes is sent elsewhere, and a door in front loses nothing."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from llm_service.config.loading import load
from llm_service.engines import health, pool
from llm_service.port.stopping import Drain, Server
from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until
from tests.unit.service.client import STREAM, SteadyClient
from tests.unit.service.door import CHAT, OPENAI_BODY, Door, Running
from tests.unit.service.engine_files import Deployment
from tests.unit.service.test_service_process import Process

OpenDoor = Callable[..., Door]


class Gate(list[str]):
    """Pieces of a reply, the last of which comes only when a test lets it."""

    def __init__(self) -> None:
        super().__init__(["a"])
        self.opened = threading.Event()

    def __iter__(self) -> Iterator[str]:
        yield "a"
        self.opened.wait(20)
        yield "z"


@pytest.fixture
def engine() -> Iterator[StubEngine]:
    with StubEngine() as engine:
        yield engine


@pytest.fixture
def service(engine: StubEngine, tmp_path: Path) -> Iterator[Process]:
    running = Process(tmp_path / "log", LLM_VLLM_ENDPOINT=engine.url)
    yield running
    running.process.kill()
    running.process.wait(10)


def read(reply: httpx.Response) -> bytes:
    return b"".join(reply.iter_raw())


def test_while_it_drains_it_answers_503_and_what_runs_finishes(service: Process, engine: StubEngine) -> None:
    engine.knobs.pieces = gate = Gate()
    with httpx.Client(base_url=service.url, trust_env=False, timeout=20) as kept, ThreadPoolExecutor(1) as thread:
        assert kept.get("/ready").status_code == 200
        with httpx.stream("POST", service.url + CHAT, json=STREAM, trust_env=False, timeout=20) as stream:
            rest = thread.submit(read, stream)
            service.process.send_signal(signal.SIGTERM)
            wait_until(lambda: kept.get("/ready").status_code == 503, 10, "it says that it stops")
            assert kept.get("/ready").json()["state"] == "draining"
            assert kept.get("/v1/models").json()["error"]["phase"] == "draining"
            assert kept.get("/health").status_code == 200
            for client in (kept, httpx):
                reply = client.post(service.url + CHAT, json=OPENAI_BODY)
                assert (reply.status_code, reply.headers["retry-after"], reply.headers["connection"]) == (
                    503,
                    "5",
                    "close",
                )
                assert reply.json()["error"]["type"] == "ShuttingDownError"
            gate.opened.set()
            assert rest.result(20).endswith(b"data: [DONE]\n\n")
    assert service.process.wait(20) == 0
    assert len(engine.chats) == 1


def test_what_waits_for_a_place_was_taken_and_is_served(engine: StubEngine, tmp_path: Path) -> None:
    engine.knobs.pieces = gate = Gate()
    service = Process(tmp_path / "log", LLM_VLLM_ENDPOINT=engine.url, LLM_MAX_IN_FLIGHT="1")
    with httpx.Client(base_url=service.url, trust_env=False, timeout=20) as client, ThreadPoolExecutor(1) as thread:
        with client.stream("POST", CHAT, json=STREAM) as stream:
            waiting = thread.submit(client.post, CHAT, json=OPENAI_BODY)
            wait_until(lambda: "berth_requests_queued 1" in client.get("/metrics").text, 10, "one waits")
            service.process.send_signal(signal.SIGTERM)
            wait_until(lambda: client.get("/ready").status_code == 503, 10, "it says that it stops")
            gate.opened.set()
            assert read(stream).endswith(b"data: [DONE]\n\n")
        assert waiting.result(20).status_code == 200
    assert service.process.wait(20) == 0


def test_with_nothing_running_it_ends_at_once(service: Process) -> None:
    with httpx.Client(base_url=service.url, trust_env=False) as idle:
        assert idle.get("/ready").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0


async def test_requests_that_are_refused_do_not_keep_it_waiting() -> None:
    server = Server(uvicorn.Config(None), Drain(), 60)  # type: ignore[arg-type]
    running, refused = (asyncio.ensure_future(asyncio.sleep(0)) for _ in range(2))
    server.server_state.tasks.add(running)
    server.handle_exit(signal.SIGTERM, None)
    server.server_state.tasks.add(refused)
    await server.on_tick(1)
    assert not server.should_exit
    server.server_state.tasks.discard(running)
    await server.on_tick(2)
    assert server.should_exit
    await asyncio.gather(running, refused)


def test_a_second_ctrl_c_does_not_wait_for_what_runs(service: Process, engine: StubEngine) -> None:
    engine.knobs.hold = "after first piece"
    with httpx.stream("POST", service.url + CHAT, json=STREAM, trust_env=False, timeout=20) as stream:
        parts = stream.iter_raw()
        text = next(parts)
        service.process.send_signal(signal.SIGINT)
        wait_until(lambda: httpx.get(f"{service.url}/ready", trust_env=False).status_code == 503, 10, "it drains")
        service.process.send_signal(signal.SIGINT)
        text += b"".join(parts)
    assert b"ShuttingDownError" in text
    assert service.process.wait(20) == 0


@pytest.mark.parametrize("told", ["by its file", "by nobody"])
def test_doors_that_stop_one_after_the_other_lose_nothing_of_what_a_door_in_front_sends(
    open_door: OpenDoor, engine: StubEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setattr(pool, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(health, "CACHE_SECONDS", 0.02)
    engine.knobs.piece_seconds = 0.02
    runs = Deployment(tmp_path)

    def begin(number: int) -> Running:
        inner = Running(load({"LLM_VLLM_ENDPOINT": engine.url}))
        runs.say(f"run-{number}", inner.url)
        return inner

    old = begin(0)
    front = open_door(LLM_VLLM_ENDPOINT=str(runs.directory))
    client = SteadyClient(front)
    for number in range(6):
        new = begin(number + 1)
        wait_until(lambda: "2 of 2" in front.client.get("/ready").text, 20, "the successor is in")
        count = len(client.replies)
        wait_until(lambda count=count: len(client.replies) > count + 6, 20, "both have something to do", interval=0.01)
        if told == "by its file":
            runs.say(f"run-{number}", old.url, "draining")
        old.terminate()
        old.stopped()
        runs.say(f"run-{number}", old.url, "stopped")
        old = new
    assert client.finish() == []
    assert len(client.replies) > 40
    old.stop()


def test_a_door_in_front_says_that_all_stop_while_their_streams_finish(open_door: OpenDoor, engine: Any) -> None:
    engine.knobs.pieces = gate = Gate()
    inner = Running(load({"LLM_VLLM_ENDPOINT": engine.url}))
    front = open_door(LLM_VLLM_ENDPOINT=f"{inner.url},http://127.0.0.1:1", LLM_POOL_WAIT_SECONDS="0.05")
    with ThreadPoolExecutor(1) as thread, front.client.stream("POST", CHAT, json=STREAM) as stream:
        rest = thread.submit(read, stream)
        inner.terminate()
        wait_until(lambda: front.chat(OPENAI_BODY).status_code == 503, 10, "no door takes new requests")
        assert front.chat(OPENAI_BODY).json()["error"]["phase"] == "draining"
        gate.opened.set()
        assert rest.result(20).endswith(b"data: [DONE]\n\n")
    inner.stopped()
