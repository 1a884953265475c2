"""Requests a minute: what a key may send at once, and how that grows again."""

import pytest

from llm_service.errors import Overloaded, TooManyRequests
from llm_service.lock import admission
from llm_service.lock.admission import Admission
from llm_service.lock.keys import Key
from tests.unit.service.crowd import ALICE, BOB, made, run


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
