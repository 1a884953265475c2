"""Engines of several that refuse, die, hang and cut their replies: a request costs nothing while another can answer."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llm_service.engines import engine as engines
from tests.support.stub_engine import StubEngine
from tests.support.stub_knobs import Record
from tests.support.waiting import wait_until
from tests.unit.service.client import STREAM, failed
from tests.unit.service.door import CHAT, OPENAI_BODY, Door, both_ready
from tests.unit.service.engine_files import Deployment

OpenDoor = Callable[..., Door]
BOTH = pytest.mark.parametrize("body", [OPENAI_BODY, STREAM], ids=["whole", "stream"])
pytestmark = pytest.mark.usefixtures("quick_pool")


def finished(reply: Any) -> bool:
    return not failed(reply)


@BOTH
def test_an_engine_that_refuses_connections_costs_no_request(pooled: Any, two: Any, body: dict[str, Any]) -> None:
    a, b = two
    door = pooled(a, b)
    both_ready(door)
    a.kill()
    assert all(finished(door.chat(body)) for _ in range(10))
    assert len(b.chats) == 10


@BOTH
def test_an_engine_that_dies_before_a_byte_costs_no_request(pooled: Any, two: Any, body: dict[str, Any]) -> None:
    a, b = two
    door = pooled(a, b)
    both_ready(door)
    a.knobs.die = "before headers"
    assert all(finished(door.chat(body)) for _ in range(10))
    assert len(b.chats) == 10
    assert 1 <= len(a.chats) <= 10


@pytest.mark.parametrize("hold", ["before headers", "after headers"])
@BOTH
def test_requests_under_way_on_a_killed_engine_are_answered_by_another(
    pooled: Any, two: Any, body: dict[str, Any], hold: str
) -> None:
    a, b = two
    a.knobs.hold = hold if body is STREAM else "before headers"
    door = pooled(a, b)
    both_ready(door)
    with ThreadPoolExecutor(8) as clients:
        replies = [clients.submit(door.chat, body) for _ in range(8)]
        wait_until(lambda: len(a.chats) + len(b.chats) == 8, 10, "all requests are under way")
        assert a.chats
        a.kill()
    assert all(finished(reply.result()) for reply in replies)


def test_a_request_that_no_engine_survives_goes_to_two_at_most(pooled: Any, begin: Any) -> None:
    three = [begin() for _ in range(3)]
    door = pooled(*three)
    for engine in three:
        engine.knobs.die = "before headers"
    assert door.chat(OPENAI_BODY).status_code == 502
    assert sum(len(engine.chats) for engine in three) == 2


def test_a_stream_that_has_begun_is_never_asked_for_twice(pooled: Any, two: Any) -> None:
    a, b = two
    door = pooled(a, b)
    a.knobs.die = b.knobs.die = "in stream"
    seen = a.knobs.die_after = b.knobs.die_after = threading.Event()
    with door.client.stream("POST", CHAT, json=STREAM) as reply:
        parts = reply.iter_text()
        text = next(parts)
        seen.set()
        text += "".join(parts)
    assert (reply.status_code, '"error"' in text, "[DONE]" in text) == (200, True, False)
    assert len(a.chats) + len(b.chats) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(503, "EngineNotReadyError"), (503, "ShuttingDownError"), (502, "EngineError")]
)
@BOTH
def test_a_door_whose_engine_is_not_ready_costs_no_request(
    pooled: Any, two: Any, body: dict[str, Any], status: int, kind: str
) -> None:
    a, b = two
    door = pooled(a, b)
    both_ready(door)
    a.knobs.status = status
    a.knobs.error_body = b'{"error":{"message":"not now","type":"%s","phase":"loading"}}' % kind.encode()
    assert all(finished(door.chat(body)) for _ in range(6))
    assert len(b.chats) == 6


def test_an_engine_that_fails_again_and_again_rests(pooled: Any, two: Any) -> None:
    a, b = two
    door = pooled(a, b)
    both_ready(door)
    a.knobs.die = "before headers"
    assert all(finished(door.chat(OPENAI_BODY)) for _ in range(60))
    assert len(a.chats) < 15
    a.knobs.die = None
    before = len(a.chats)
    wait_until(lambda: finished(door.chat(OPENAI_BODY)) and len(a.chats) > before, 20, "it gets requests again")


def test_an_engine_that_hangs_again_and_again_rests(pooled: Any, two: Any) -> None:
    a, b = two
    door = pooled(a, b, LLM_FIRST_BYTE_TIMEOUT_SECONDS="0.1")
    both_ready(door)
    a.knobs.hold = "before headers"
    replies = [door.chat(OPENAI_BODY) for _ in range(40)]
    assert {reply.status_code for reply in replies} == {200, 504}
    assert len(a.chats) < 10


def test_requests_that_ask_for_too_much_are_no_fault_of_their_engine(pooled: Any, two: Any) -> None:
    a, b = two
    door = pooled(a, b, LLM_TOTAL_TIMEOUT_SECONDS="0.1")
    both_ready(door)
    a.knobs.hold = "before headers"
    assert sorted(door.chat(OPENAI_BODY).status_code for _ in range(12)) == [200] * 6 + [504] * 6


class Forgetful(StubEngine):
    """Serves one request on each connection, keeps it open, and closes it when a second one comes."""

    def __init__(self) -> None:
        super().__init__()
        self._used: set[Any] = set()

    async def _answer(self, record: Record, writer: Any) -> bool:
        if writer in self._used:
            return False
        self._used.add(writer)
        return await super()._answer(record, writer)


@pytest.mark.parametrize("count", [1, 2])
@BOTH
def test_connections_that_die_when_they_are_used_again_cost_no_request(
    pooled: Any, begin: Any, body: dict[str, Any], count: int
) -> None:
    door = pooled(*(begin(Forgetful) for _ in range(count)))
    with ThreadPoolExecutor(4) as clients:
        replies = list(clients.map(lambda _: door.chat(body), range(60)))
    assert all(finished(reply) for reply in replies)


class Closing(StubEngine):
    """Closes each connection after one request."""

    async def _answer(self, record: Record, writer: Any) -> bool:
        await super()._answer(record, writer)
        return False


@BOTH
def test_a_request_that_an_only_engine_loses_is_not_sent_to_it_again(
    pooled: Any, begin: Any, body: dict[str, Any]
) -> None:
    door = pooled(engine := begin(Closing))
    assert door.client.get("/ready").status_code == 200
    engine.knobs.die = "before headers"
    assert door.chat(body).status_code == 502
    assert len(engine.chats) == 1


def test_a_connection_that_was_too_old_is_no_fault_of_its_engine(pooled: Any, begin: Any) -> None:
    door = pooled(engine := begin(Forgetful))
    assert all(finished(door.chat(OPENAI_BODY)) for _ in range(3))
    asked = [record.path for record in engine.records]
    assert asked.count("/health") == 1


class Cut(StubEngine):
    """Sends so many bytes of a chat reply and closes."""

    offset = 0

    async def _answer(self, record: Record, writer: Any) -> bool:
        if record.path != CHAT:
            return await super()._answer(record, writer)
        writer.write(RAW[: self.offset])
        await writer.drain()
        return False


BODY = b'{"choices":[{"message":{"content":"whole"}}]}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
RAW = HEAD + BODY


def test_an_engine_that_closes_at_any_byte_never_makes_a_wrong_reply(
    pooled: Any, begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "LONGEST_REST_SECONDS", 0.0)
    cut, whole = begin(Cut), begin()
    whole.knobs.whole_body = BODY
    door = pooled(cut, whole)
    both_ready(door)
    for cut.offset in range(len(RAW)):
        cut.records.clear()
        while not cut.chats:
            reply = door.chat(OPENAI_BODY)
        # Within the body the door may or may not have seen a byte of it before the end.
        allowed = {200} if cut.offset <= len(HEAD) else {200, 502}
        assert (cut.offset, reply.status_code in allowed) == (cut.offset, True)
        assert reply.status_code != 200 or reply.content == BODY


def test_an_engine_that_hangs_does_not_hold_up_the_others(pooled: Any, two: Any) -> None:
    a, b = two
    a.knobs.silent = True
    door = pooled(a, b)
    assert all(finished(door.chat(OPENAI_BODY)) for _ in range(3))
    assert door.client.get("/ready").status_code == 200


def test_a_client_sees_no_failure_while_engines_are_killed_without_a_word(
    open_door: OpenDoor, runs: Deployment, begin: Any
) -> None:
    """Whole replies only: of a stream that has begun, the rest is lost with its engine."""
    runs.say("steady", begin())
    door = open_door(LLM_VLLM_ENDPOINT=str(runs.directory))
    replies = []
    with ThreadPoolExecutor(4) as clients:
        for number in range(5):
            victim = begin()
            runs.say(f"run-{number}", victim)
            while len(victim.chats) < 4:
                replies += clients.map(lambda _: door.chat(OPENAI_BODY), range(8))
            more = [clients.submit(door.chat, OPENAI_BODY) for _ in range(12)]
            victim.kill()
            replies += [reply.result(20) for reply in more]
    assert [reply.text for reply in replies if not finished(reply)] == []
