"""Who runs, who waits and who is told to come again; and that nothing is left of those who gave up."""

import asyncio
import hashlib
import json
import logging
import random
import socket
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_service.config.loading import load
from llm_service.errors import Overloaded, ServiceError, TooManyRequests
from llm_service.lock import admission
from llm_service.lock.admission import Admission
from llm_service.lock.keys import Key
from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPENAI_BODY, Door

OpenDoor = Callable[..., Door]

ALICE, BOB, CAROL = (Key(name, name.encode()) for name in ("alice", "bob", "carol"))


def made(places: int = 1, room: int = 10, **environ: str) -> Admission:
    return Admission(load({"LLM_MAX_IN_FLIGHT": str(places), "LLM_MAX_QUEUED": str(room), **environ}))


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


class Crowd:
    """Requests in front of one admission: who got in, in which order."""

    def __init__(self, door: Admission) -> None:
        self.door = door
        self.order: list[str] = []

    def come(self, key: Key | None, name: str = "") -> "asyncio.Task[None]":
        async def enter() -> None:
            await self.door.enter(key)
            self.order.append(name)

        return asyncio.ensure_future(enter())


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def refusal(task: "asyncio.Task[None]") -> ServiceError:
    error = task.exception()
    assert isinstance(error, ServiceError)
    return error


def test_so_many_run_so_many_wait_and_the_next_is_told_at_once() -> None:
    async def test() -> None:
        crowd = Crowd(made(places=2, room=3))
        tasks = [crowd.come(None, str(number)) for number in range(6)]
        await settled()
        assert (crowd.door.in_flight, crowd.door.queued) == (2, 3)
        assert [task.done() for task in tasks] == [True, True, False, False, False, True]
        error = refusal(tasks[5])
        assert (type(error), error.status, error.retry_after) == (Overloaded, 503, 5)
        for _ in range(5):
            crowd.door.leave(None)
            await settled()
        assert crowd.order == ["0", "1", "2", "3", "4"]
        assert (crowd.door.in_flight, crowd.door.queued) == (0, 0)

    run(test())


def test_a_place_goes_to_the_keys_in_turn_not_to_the_longest_queue() -> None:
    async def test() -> None:
        crowd = Crowd(made())
        await crowd.door.enter(ALICE)
        for name in ("a1", "a2", "a3"):
            crowd.come(ALICE, name)
        await settled()
        for key, name in ((BOB, "b1"), (CAROL, "c1"), (BOB, "b2")):
            crowd.come(key, name)
        await settled()
        for key in (ALICE, ALICE, BOB, CAROL, ALICE, BOB):
            crowd.door.leave(key)
            await settled()
        assert crowd.order == ["a1", "b1", "c1", "a2", "b2", "a3"]

    run(test())


def test_a_full_queue_drops_the_last_of_the_key_that_has_most_in_it() -> None:
    async def test() -> None:
        crowd = Crowd(made(room=4))
        await crowd.door.enter(ALICE)
        greedy = [crowd.come(ALICE) for _ in range(4)]
        await settled()
        modest = [crowd.come(BOB) for _ in range(3)]
        await settled()
        assert [task.done() for task in greedy] == [False, False, True, True]
        assert [task.done() for task in modest] == [False, False, True]
        assert {type(refusal(task)) for task in (greedy[2], greedy[3], modest[2])} == {Overloaded}
        assert crowd.door.queued == 4
        for task in greedy + modest:
            task.cancel()
        await settled()
        assert (crowd.door.in_flight, crowd.door.queued) == (1, 0)

    run(test())


@pytest.mark.parametrize("waiting", [False, True])
def test_a_keys_limit_counts_what_runs_and_what_waits_and_is_its_own(waiting: bool) -> None:
    async def test() -> None:
        door = made(places=1 if waiting else 10, LLM_KEY_MAX_IN_FLIGHT="2")
        crowd = Crowd(door)
        tasks = [crowd.come(ALICE) for _ in range(3)]
        await settled()
        error = refusal(tasks[2])
        assert (type(error), error.status, error.retry_after) == (TooManyRequests, 429, 1)
        assert "2 requests at a time" in error.message
        wide = Key("wide", b"wide", max_in_flight=3)
        others = [crowd.come(key) for key in (BOB, wide, wide, wide)]
        await settled()
        assert not [task for task in others if task.done() and task.exception()]
        door.leave(ALICE)
        await settled()
        assert not crowd.come(ALICE).done()
        await settled()
        for task in others:
            task.cancel()

    run(test())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that rates are counted by: a list of one number."""
    now = [1000.0]
    monkeypatch.setattr(admission, "monotonic", lambda: now[0])
    return now


async def sent(door: Admission, key: Key, count: int) -> int:
    """Send requests one after the other; return how many got in."""
    for number in range(count):
        try:
            await door.enter(key)
        except TooManyRequests:
            return number
        door.leave(key)
    return count


def test_a_rate_allows_a_minutes_worth_at_once_and_refills_all_the_time(clock: list[float]) -> None:
    async def test() -> None:
        door = made(LLM_KEY_REQUESTS_PER_MINUTE="60")
        slow = Key("slow", b"slow", requests_per_minute=6)
        assert await sent(door, ALICE, 100) == 60
        assert await sent(door, slow, 100) == 6
        with pytest.raises(TooManyRequests) as caught:
            await door.enter(slow)
        assert caught.value.retry_after == 10
        assert "6 requests a minute" in caught.value.message
        clock[0] += 9.5
        assert await sent(door, slow, 1) == 0
        clock[0] += 0.5
        assert await sent(door, slow, 2) == 1
        assert await sent(door, ALICE, 100) == 10
        clock[0] += 1000
        assert await sent(door, slow, 100) == 6
        assert door.in_flight == 0

    run(test())


def test_a_rate_below_one_a_minute_still_lets_one_in(clock: list[float]) -> None:
    async def test() -> None:
        door = made(LLM_KEY_REQUESTS_PER_MINUTE="0.5")
        assert await sent(door, ALICE, 2) == 1
        clock[0] += 119
        assert await sent(door, ALICE, 1) == 0
        clock[0] += 1
        assert await sent(door, ALICE, 1) == 1

    run(test())


def test_what_the_service_itself_refuses_costs_a_key_nothing(clock: list[float]) -> None:
    async def test() -> None:
        door = made(places=1, room=0)
        key = Key("slow", b"slow", requests_per_minute=2)
        await door.enter(BOB)
        for _ in range(5):
            with pytest.raises(Overloaded):
                await door.enter(key)
        door.leave(BOB)
        assert await sent(door, key, 5) == 2

    run(test())


def test_a_limit_that_changes_in_the_file_counts_from_the_next_request_on(clock: list[float]) -> None:
    async def test() -> None:
        door = made()
        assert await sent(door, Key("a", b"a"), 50) == 50
        assert await sent(door, Key("a", b"a", requests_per_minute=5), 50) == 5
        assert await sent(door, Key("a", b"a"), 50) == 50
        assert await sent(door, Key("a", b"a", requests_per_minute=5), 50) == 5

    run(test())


def test_waiting_has_an_end() -> None:
    async def test() -> None:
        door = made(LLM_QUEUE_TIMEOUT_SECONDS="0.01")
        await door.enter(ALICE)
        with pytest.raises(Overloaded) as caught:
            await door.enter(BOB)
        assert caught.value.retry_after == 5
        assert (door.in_flight, door.queued) == (1, 0)
        door.leave(ALICE)
        await door.enter(BOB)

    run(test())


@pytest.mark.parametrize("moment", ["while it waits", "and its turn comes before it notices", "just as it was let in"])
def test_who_gives_up_leaves_nothing_behind(moment: str) -> None:
    async def test() -> None:
        door = made()
        crowd = Crowd(door)
        await door.enter(ALICE)
        gone = crowd.come(BOB)
        await settled()
        if moment == "just as it was let in":
            door.leave(ALICE)
            gone.cancel()
        else:
            gone.cancel()
            if moment == "while it waits":
                await settled()
            door.leave(ALICE)
        await settled()
        assert gone.cancelled()
        assert (door.in_flight, door.queued, crowd.order) == (0, 0, [])
        await asyncio.wait_for(door.enter(CAROL), 1)

    run(test())


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_the_bounds_hold_and_the_counts_return_to_0(seed: int) -> None:
    async def test() -> None:
        chance = random.Random(seed)
        door = made(places=3, room=5, LLM_QUEUE_TIMEOUT_SECONDS="0.002")
        keys = [None, ALICE, BOB, Key("narrow", b"narrow", max_in_flight=2)]

        async def request() -> None:
            key = chance.choice(keys)
            await door.enter(key)
            try:
                assert door.in_flight <= 3
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                door.leave(key)

        tasks = []
        for _ in range(200):
            tasks.append(asyncio.ensure_future(request()))
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
            if chance.random() < 0.4:
                await asyncio.sleep(0)
            if chance.random() < 0.02:
                await asyncio.sleep(0.003)
            assert door.in_flight <= 3
            assert door.queued <= 5
            assert door.in_flight == 3 or not door.queued
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        faults = [
            each for each in ended if each is not None and not isinstance(each, ServiceError | asyncio.CancelledError)
        ]
        assert faults == []
        assert sum(each is None for each in ended) > 20
        assert (door.in_flight, door.queued) == (0, 0)
        assert not door._turns
        assert [share.held for share in door._shares.values() if share.held or share.waiting] == []

    run(test())


@contextmanager
def held(door: Door, **options: Any) -> Iterator[None]:
    """A stream that the engine does not end, until its client leaves."""
    door.engine.knobs.hold = "after first piece"
    with door.client.stream("POST", CHAT, json={**OPENAI_BODY, "stream": True}, **options) as reply:
        pieces = reply.iter_raw()  # when nobody holds it, the stream is closed
        next(pieces)
        yield


def test_beyond_the_bounds_the_answer_is_503_at_once_until_a_client_leaves(open_door: OpenDoor) -> None:
    door = open_door(LLM_MAX_IN_FLIGHT="1", LLM_MAX_QUEUED="0")
    with held(door):
        refused = door.chat(OPENAI_BODY)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["error"]["type"] == "OverloadedError"
        assert door.client.get("/ready").status_code == 200
    wait_until(lambda: door.chat(OPENAI_BODY).status_code == 200, 10, "the place is free again")
    assert len(door.engine.chats) == 2


def waiting(door: Door) -> int:
    """How many requests wait for a place, by the service's metrics."""
    (line,) = [one for one in door.client.get("/metrics").text.splitlines() if one.startswith("berth_requests_queued ")]
    return int(float(line.split()[1]))


def test_who_waits_is_served_when_its_turn_comes(open_door: OpenDoor) -> None:
    door = open_door(LLM_MAX_IN_FLIGHT="1", LLM_MAX_QUEUED="1")
    with ThreadPoolExecutor(1) as thread:
        with held(door):
            served = thread.submit(door.chat, OPENAI_BODY)
            wait_until(lambda: waiting(door) == 1, 10, "one waits")
            assert door.chat(OPENAI_BODY).status_code == 503
            assert len(door.engine.chats) == 1
        assert served.result(20).status_code == 200


def test_who_leaves_while_it_waits_is_never_sent_to_the_engine(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llm_service.access")
    door = open_door(LLM_MAX_IN_FLIGHT="1", LLM_MAX_QUEUED="1")
    body = json.dumps(OPENAI_BODY).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with held(door):
        with socket.create_connection(("127.0.0.1", door.service.port)) as leaves:
            leaves.sendall(head + body)
            wait_until(lambda: waiting(door) == 1, 10, "it waits")
        wait_until(lambda: waiting(door) == 0, 10, "it has left")
    wait_until(lambda: door.chat(OPENAI_BODY).status_code == 200, 10, "the place is free")
    assert len(door.engine.chats) == 2
    assert "client gone" in [outcome(record) for record in caplog.records]


def outcome(record: logging.LogRecord) -> str:
    return str(getattr(record, "fields", {}).get("outcome"))


def test_a_keys_own_limits_are_429_and_concern_nobody_else(open_door: OpenDoor, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    digests = {name: hashlib.sha256(f"{name}-key".encode()).hexdigest() for name in ("narrow", "slow", "free")}
    limits = {"narrow": "max_in_flight=1", "slow": "requests_per_minute=1", "free": ""}
    file.write_text("".join(f"{name} sha256:{digests[name]} {limits[name]}\n" for name in digests))
    door = open_door(LLM_API_KEYS_FILE=str(file))

    def ask(name: str) -> httpx.Response:
        return door.chat(OPENAI_BODY, headers={"Authorization": f"Bearer {name}-key"})

    with held(door, headers={"Authorization": "Bearer narrow-key"}):
        refused = ask("narrow")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["type"] == "RateLimitError"
        assert [ask(name).status_code for name in ("slow", "free", "free")] == [200, 200, 200]
        refused = ask("slow")
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
    wait_until(lambda: ask("narrow").status_code == 200, 10, "its own request has ended")
