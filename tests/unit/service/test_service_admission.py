"""Who runs, who waits and who is told to come again; and that nothing is left of those who gave up."""

import asyncio
import random

import pytest

from llm_service.errors import Overloaded, ServiceError, TooManyRequests
from llm_service.lock.keys import Key
from tests.unit.service.crowd import ALICE, BOB, CAROL, Crowd, made, refusal, run, settled


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
