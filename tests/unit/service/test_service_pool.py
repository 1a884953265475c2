"""Several engines behind one door: who gets a request, and what happens when one of them fails."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llm_service import engines, health, pool
from tests.support.stub_engine import Record, StubEngine
from tests.support.waiting import wait_until
from tests.unit.service.client import STREAM, SteadyClient, failed
from tests.unit.service.door import CHAT, OPENAI_BODY, Door
from tests.unit.service.engine_files import Deployment

OpenDoor = Callable[..., Door]
BOTH = pytest.mark.parametrize("body", [OPENAI_BODY, STREAM], ids=["whole", "stream"])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(health, "CACHE_SECONDS", 0.02)


@pytest.fixture(autouse=True)
def begin() -> Iterator[Callable[..., Any]]:
    """Begin an engine. They end after the door does, which asks them all the time."""
    begun: list[StubEngine] = []

    def one(kind: type[StubEngine] = StubEngine) -> StubEngine:
        begun.append(kind())
        begun[-1].listen()
        return begun[-1]

    yield one
    for engine in begun:
        engine.close()


@pytest.fixture
def two(begin: Any) -> tuple[StubEngine, StubEngine]:
    return begin(), begin()


@pytest.fixture
def pooled(open_door: OpenDoor) -> Callable[..., Door]:
    """Make a door in front of several engines; its own stub engine is none of them."""

    def make(*engines: StubEngine, **environ: str) -> Door:
        return open_door(LLM_VLLM_ENDPOINT=", ".join(engine.url for engine in engines), **environ)

    return make


@pytest.fixture
def runs(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def both_ready(door: Door) -> None:
    wait_until(lambda: door.client.get("/ready").json()["detail"].startswith("2 of 2"), 10, "both are ready")


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
    assert reply.json()["error"]["message"] == "No engine is ready: one is starting (loading weights)."
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


def test_an_engine_that_hangs_does_not_hold_up_the_others(pooled: Any, two: Any) -> None:
    a, b = two
    a.knobs.silent = True
    door = pooled(a, b)
    assert all(finished(door.chat(OPENAI_BODY)) for _ in range(3))
    assert door.client.get("/ready").status_code == 200


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
