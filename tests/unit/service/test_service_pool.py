"""Several engines behind one door: who gets a request, and what is said of them together."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until
from tests.unit.service.client import STREAM, SteadyClient, failed
from tests.unit.service.door import OPENAI_BODY, Door, both_ready
from tests.unit.service.engine_files import Deployment

OpenDoor = Callable[..., Door]
BOTH = pytest.mark.parametrize("body", [OPENAI_BODY, STREAM], ids=["whole", "stream"])
pytestmark = pytest.mark.usefixtures("quick_pool")


def finished(reply: Any) -> bool:
    return not failed(reply)


def test_the_engine_with_the_fewest_unfinished_requests_gets_the_next(pooled: Any, two: Any) -> None:
    a, b = two
    door = pooled(a, b)
    both_ready(door)
    a.knobs.hold = b.knobs.hold = "after headers"
    held = door.begin(STREAM, *two)
    busy, free = (a, b) if a.chats else (b, a)
    busy.knobs.hold = free.knobs.hold = None
    for _ in range(6):
        assert finished(door.chat(STREAM))
    assert (len(busy.chats), len(free.chats)) == (1, 6)
    held.close()


def test_idle_engines_take_turns(pooled: Any, two: Any) -> None:
    door = pooled(*two)
    both_ready(door)
    for _ in range(6):
        assert finished(door.chat(OPENAI_BODY))
    assert [len(engine.chats) for engine in two] == [3, 3]


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_what_an_engine_itself_answers_is_passed_on(pooled: Any, two: Any, status: int) -> None:
    a, b = two
    door = pooled(a, b)
    for engine in two:
        engine.knobs.status, engine.knobs.retry_after = status, "3"
        engine.knobs.error_body = b'{"error":{"message":"the queue is full","type":"Service Unavailable"}}'
    reply = door.chat(OPENAI_BODY)
    assert (reply.status_code, reply.content, reply.headers["retry-after"]) == (status, a.knobs.error_body, "3")
    assert len(a.chats) + len(b.chats) == 1


def test_a_request_waits_for_an_engine_that_comes(open_door: OpenDoor, runs: Deployment, begin: Any) -> None:
    door, engine = open_door(LLM_VLLM_ENDPOINT=str(runs.directory), LLM_POOL_WAIT_SECONDS="20"), begin()
    with ThreadPoolExecutor(1) as client:
        reply = client.submit(door.chat, OPENAI_BODY)
        runs.say("1", engine, "starting")
        runs.say("1", engine)
        assert finished(reply.result(20))


def test_without_an_engine_in_time_it_is_503_with_the_phase(open_door: OpenDoor, runs: Deployment) -> None:
    door = open_door(LLM_VLLM_ENDPOINT=str(runs.directory), LLM_POOL_WAIT_SECONDS="0.05")
    runs.say("1", None, "starting", watch={"phase": {"name": "loading weights"}})
    wait_until(lambda: "loading weights" in door.client.get("/ready").text, 10, "the file is read")
    reply = door.chat(OPENAI_BODY)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
    assert reply.json()["error"]["message"] == "No engine is ready: one is loading weights."
    assert reply.json()["error"]["phase"] == "starting"
    assert door.client.get("/v1/models").status_code == 503


def test_each_engine_is_shown_its_own_key(open_door: OpenDoor, runs: Deployment, two: Any, tmp_path: Path) -> None:
    for name, engine in zip("ab", two, strict=True):
        (tmp_path / name).write_text(f"key-{name}")
        engine.knobs.api_key = f"key-{name}"
        runs.say(f"run-{name}", engine, key_file=str(tmp_path / name))
    door = open_door(LLM_VLLM_ENDPOINT=str(runs.directory))
    both_ready(door)
    assert all(finished(door.chat(OPENAI_BODY)) for _ in range(4))
    assert [len(engine.chats) for engine in two] == [2, 2]


def test_requests_go_to_the_engine_that_serves_their_model(pooled: Any, two: Any) -> None:
    a, b = two
    a.knobs.models, b.knobs.models = ["small"], ["large"]
    door = pooled(a, b, LLM_POOL_WAIT_SECONDS="0.05")
    both_ready(door)
    assert sorted(model["id"] for model in door.client.get("/v1/models").json()["data"]) == ["large", "small"]
    for _ in range(3):
        assert finished(door.chat({**OPENAI_BODY, "model": "large"}))
    assert (a.chats, len(b.chats)) == ([], 3)
    b.kill()
    reply = door.chat({**OPENAI_BODY, "model": "large"})
    assert (reply.status_code, reply.json()["error"]["phase"], a.chats) == (503, "starting", [])
    assert finished(door.chat({**OPENAI_BODY, "model": "small"}))
    a.knobs.status = 404
    assert door.chat({**OPENAI_BODY, "model": "none has it"}).status_code == 404


def test_the_door_is_ready_while_one_engine_is(pooled: Any, two: Any) -> None:
    a, b = two
    door = pooled(a, b)
    both_ready(door)
    a.kill()
    wait_until(lambda: door.client.get("/ready").json()["detail"].startswith("1 of 2"), 10, "one is left")
    assert door.client.get("/ready").json()["models"] == ["stub-model"]
    b.kill()
    wait_until(lambda: door.client.get("/ready").status_code == 503, 10, "none is left")
    assert door.client.get("/ready").json()["state"] == "starting"


def test_a_client_sees_no_failure_while_engines_start_drain_and_die_in_turn(
    open_door: OpenDoor, runs: Deployment, begin: Any
) -> None:
    def started(number: int) -> StubEngine:
        engine: StubEngine = begin()
        engine.knobs.piece_seconds = 0.03
        runs.say(f"run-{number}", engine)
        return engine

    old = started(0)
    door = open_door(LLM_VLLM_ENDPOINT=str(runs.directory))
    client = SteadyClient(door)
    for number in range(5):
        new = started(number + 1)
        wait_until(lambda new=new: len(new.chats) > 3, 20, "the successor gets requests")
        assert any(chat.json.get("stream") for chat in old.chats)
        runs.say(f"run-{number}", old, "draining")
        wait_until(lambda: "1 of 1 engines" in door.client.get("/ready").text, 20, "the old one gets no more requests")
        wait_until(lambda old=old: streams_under_way(old) == 0, 20, "the old one has finished what it had")
        old.kill()
        runs.say(f"run-{number}", old, "stopped")
        old = new
    assert client.finish() == []
    assert len(client.replies) > 50


def streams_under_way(engine: StubEngine) -> int:
    """How many streams have begun and not ended; what has not begun may be asked for elsewhere."""
    return sum(1 for chat in engine.chats if chat.pieces_sent and not chat.answered)
