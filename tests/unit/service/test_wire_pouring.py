"""A body that is poured: every piece goes on at once, in order, and waits when it is asked to."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.engines.answer import Answer
from llm_service.engines.wire import MOST_HELD_BYTES
from llm_service.errors import EngineLost, ServiceError
from tests.unit.service.lines import CHUNKED, Connection, framed, split

bodies = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8)
points = st.lists(st.integers(0, 2000), max_size=12)


async def poured(connection: Connection, answer: Answer, data: list[bytes], holds: list[bool], cut: bool) -> Any:
    """Pour while bytes come; return what was taken, how often it waited, and the failure."""
    taken: list[bytes] = []
    waits = iter(holds)
    waited = 0

    def take(piece: bytes) -> bool:
        assert piece
        taken.append(piece)
        return not next(waits, False)

    async def pour() -> ServiceError | None:
        nonlocal waited
        await answer.head()
        try:
            while not await answer.pour(take):
                waited += 1
                seen = len(taken)
                for _ in range(3):
                    await asyncio.sleep(0)
                assert len(taken) == seen
        except ServiceError as error:
            return error
        return None

    pouring = asyncio.ensure_future(pour())
    for part in data:
        connection.feed(part)
        await asyncio.sleep(0)
    if cut:
        connection.lose()
    failure = await pouring
    return b"".join(taken), waited, failure


@settings(max_examples=150, deadline=None)
@given(body=bodies, framing=st.sampled_from(["length", "chunked"]), cuts=points, holds=st.lists(st.booleans()))
def test_all_of_it_arrives_in_order_however_it_comes_and_however_often_it_waits(
    body: Any, framing: str, cuts: Any, holds: Any
) -> None:
    connection = Connection()
    answer = connection.ask()
    taken, waited, failure = asyncio.run(
        poured(connection, answer, split(framed(body, framing), cuts), holds, cut=False)
    )
    assert (taken, failure, connection.free) == (b"".join(body), None, [connection.wire])
    assert waited <= sum(holds)


@settings(max_examples=150, deadline=None)
@given(body=bodies, cuts=points, end=st.integers(0, 2000), holds=st.lists(st.booleans()))
def test_what_came_before_a_break_arrives_and_then_the_failure(body: Any, cuts: Any, end: int, holds: Any) -> None:
    data = framed(body, "chunked")
    head = data.index(b"\r\n\r\n") + 4
    cut = data[: head + end % (len(data) - head)]
    connection = Connection()
    answer = connection.ask()
    taken, _, failure = asyncio.run(poured(connection, answer, split(cut, cuts), holds, cut=True))
    assert isinstance(failure, EngineLost)
    assert failure.unanswered is not bool(taken)
    assert b"".join(body).startswith(taken)


def test_no_task_wakes_up_for_a_piece() -> None:
    async def scene() -> None:
        connection = Connection()
        answer = connection.ask()
        taken: list[bytes] = []

        def take(piece: bytes) -> bool:
            taken.append(piece)
            return True

        connection.feed(CHUNKED)
        pouring = asyncio.ensure_future(answer.pour(take))
        await asyncio.sleep(0)
        for piece in (b"1\r\nb\r\n", b"1\r\nc\r\n"):
            connection.feed(piece)
            assert taken[-1] == piece[3:4]
        pouring.cancel()

    asyncio.run(scene())


def test_while_it_waits_the_engine_waits_too() -> None:
    async def scene() -> None:
        connection = Connection()
        answer = connection.ask()
        size = 20 * MOST_HELD_BYTES
        body = b"a" * size
        data = framed([body], "length")
        connection.feed(data[: size // 2])
        taken: list[bytes] = []

        def take(piece: bytes) -> bool:
            taken.append(piece)
            return False

        assert not await answer.pour(take)
        connection.feed(data[size // 2 : size // 2 + 2 * MOST_HELD_BYTES])
        assert connection.line.paused
        assert not await answer.pour(take)
        assert not connection.line.paused
        connection.feed(data[size // 2 + 2 * MOST_HELD_BYTES :])
        assert not await answer.pour(take)
        assert await answer.pour(take)
        assert b"".join(taken) == body

    asyncio.run(scene())


def test_an_error_of_what_takes_it_reaches_whoever_pours() -> None:
    async def scene() -> None:
        connection = Connection()
        answer = connection.ask()
        connection.feed(CHUNKED)

        def take(_: bytes) -> bool:
            raise EngineLost("too large")

        pouring = asyncio.ensure_future(answer.pour(take))
        await asyncio.sleep(0)
        connection.feed(b"1\r\nb\r\n")
        with pytest.raises(EngineLost, match="too large"):
            await pouring
        answer.close()
        assert connection.line.closed

    asyncio.run(scene())
