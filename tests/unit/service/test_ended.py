"""Requests that have ended are written down together: each once, in their order, and before anybody asks."""

import asyncio

from llm_service.records.ended import Ended
from llm_service.records.exchange import Exchange

ONE, TWO, THREE = (Exchange(name, "GET", "/") for name in ("one", "two", "three"))


def test_they_are_told_a_moment_later_and_each_once() -> None:
    told: list[str] = []

    async def scene() -> None:
        done = asyncio.Event()
        ended = Ended(lambda one: told.append(one.request_id), after=done.set)
        ended.add(ONE)
        ended.add(TWO)
        assert told == []
        await done.wait()
        assert told == ["one", "two"]
        done.clear()
        ended.add(THREE)
        await done.wait()

    asyncio.run(asyncio.wait_for(scene(), 30))
    assert told == ["one", "two", "three"]


def test_who_asks_before_that_is_told_of_all() -> None:
    told: list[str] = []
    written: list[int] = []

    async def scene() -> None:
        ended = Ended(lambda one: told.append(one.request_id), after=lambda: written.append(len(told)))
        ended.add(ONE)
        ended.add(TWO)
        ended.settle()
        ended.settle()

    asyncio.run(scene())
    assert (told, written) == (["one", "two"], [2])
