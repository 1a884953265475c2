"""Chunks that come alone go straight on, past the parser: nothing else does, and nothing is lost or twice."""

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.engines.answer import Answer
from llm_service.engines.lone_chunks import LoneChunks
from llm_service.engines.wire import READ_BYTES
from llm_service.errors import EngineLost
from tests.unit.service.lines import CHUNKED, Connection, framed, received, split
from tests.unit.service.raw import chunked

# Some look like chunks, or like parts of one, so that a cut in the wrong place could be taken for one.
pieces = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.sampled_from([b"5\r\nhello\r\n", b"\r\n", b"1\r\n", b"0\r\n\r\n", b"a\r\n5\r\nhello\r\n\r\n"]),
    st.binary(min_size=1, max_size=20).map(chunked),
)
Scene = Callable[[Connection, Answer, "Taken"], Any]


class Taken:
    """What went which way; `keep` says of each chunk that is offered whether it is taken."""

    def __init__(self, keep: Callable[[], bool] = lambda: True) -> None:
        self.keep = keep
        self.all: list[bytes] = []
        self.straight: list[bytes] = []

    def take(self, piece: bytes) -> bool:
        self.all.append(piece)
        return True

    def shortcut(self, data: bytes, length: int) -> bool:
        if not data.endswith(b"\r\n") or not self.keep():
            return False
        self.straight.append(data)
        self.all.append(data[-length - 2 : -2])
        return True


def play(taken: Taken, scene: Scene) -> tuple[Connection, EngineLost | None]:
    """Pour what a scene feeds; return the connection, and the failure that the pouring ended in."""
    connection = Connection()

    async def run() -> EngineLost | None:
        answer = connection.ask()
        connection.feed(CHUNKED)
        pouring = asyncio.ensure_future(answer.pour(taken.take, taken.shortcut))
        await asyncio.sleep(0)
        scene(connection, answer, taken)
        try:
            assert await pouring
        except EngineLost as error:
            return error
        return None

    return connection, asyncio.run(run())


@settings(max_examples=300, deadline=None)
@given(
    body=st.lists(pieces, min_size=1, max_size=10),
    cuts=st.lists(st.integers(0, 3000), max_size=8),
    together=st.booleans(),
    keeps=st.lists(st.booleans()),
)
def test_all_of_it_arrives_once_and_in_order_whichever_way_it_goes(
    body: Any, cuts: Any, together: bool, keeps: Any
) -> None:
    stream = framed(body, "plainly chunked").removeprefix(CHUNKED)
    parts = split(stream, cuts) if together else [part for piece in body for part in split(chunked(piece), cuts)]
    answers = iter(keeps)
    taken = Taken(lambda: next(answers, True))
    end = [] if together else [b"0\r\n\r\n"]
    connection, failure = play(taken, lambda connection, *_: connection.feed(*parts, *end))
    assert (b"".join(taken.all), failure, connection.free) == (b"".join(body), None, [connection.wire])


def test_chunks_that_come_alone_go_on_as_they_came_and_the_connection_serves_again() -> None:
    chunks = [chunked(b"data: %d\n\n" % number) for number in range(20)]

    def scene(connection: Connection, answer: Answer, taken: Taken) -> None:
        for one in chunks:
            connection.feed(one)
        connection.feed(b"0\r\n\r\n")

    taken = Taken()
    connection, failure = play(taken, scene)
    assert failure is None
    assert taken.straight == chunks[1:]  # the first shows that they come alone
    answer = connection.ask()
    connection.feed(CHUNKED, chunked(b"other "), chunked(b"words"), b"0\r\n\r\n")
    assert (received(answer), taken.straight[-1]) == (b"other words", chunks[-1])


def test_one_in_two_parts_goes_the_long_way_and_the_next_one_straight() -> None:
    def scene(connection: Connection, answer: Answer, taken: Taken) -> None:
        connection.feed(
            chunked(b"a"), chunked(b"b"), chunked(b"cc")[:4], chunked(b"cc")[4:], chunked(b"d"), b"0\r\n\r\n"
        )

    taken = Taken()
    _, failure = play(taken, scene)
    assert (b"".join(taken.all), failure) == (b"abccd", None)
    assert taken.straight == [chunked(b"b"), chunked(b"d")]


def test_what_could_be_a_chunk_is_none_in_the_middle_of_another() -> None:
    inner = chunked(b"hello")

    def scene(connection: Connection, answer: Answer, taken: Taken) -> None:
        connection.feed(chunked(b"a"), b"%x\r\n" % (2 * len(inner)), inner, inner, b"\r\n", b"0\r\n\r\n")

    taken = Taken()
    _, failure = play(taken, scene)
    assert (b"".join(taken.all), taken.straight, failure) == (b"a" + inner + inner, [], None)


def test_the_head_of_a_chunk_that_has_begun_is_no_place_for_another() -> None:
    def scene(connection: Connection, answer: Answer, taken: Taken) -> None:
        # 21 bytes, whose head, 15, comes in two: the second part looks like a whole chunk of 5.
        connection.feed(chunked(b"a"), b"1", b"5\r\nhello\r\n", b"the rest 14 by\r\n", b"0\r\n\r\n")

    taken = Taken()
    _, failure = play(taken, scene)
    assert (b"".join(taken.all), taken.straight, failure) == (b"ahello\r\nthe rest 14 by", [], None)


def test_more_at_once_than_a_client_may_hold_is_read_in_pieces_again() -> None:
    def scene(connection: Connection, answer: Answer, taken: Taken) -> None:
        connection.feed(chunked(b"a"))
        assert isinstance(connection.line.protocol, LoneChunks)
        connection.feed(chunked(b"b") * READ_BYTES)
        assert connection.line.protocol is connection.wire
        connection.feed(chunked(b"c"), b"0\r\n\r\n")

    taken = Taken()
    _, failure = play(taken, scene)
    assert (b"".join(taken.all), failure) == (b"a" + READ_BYTES * b"b" + b"c", None)


def test_an_engine_that_is_lost_between_two_is_lost() -> None:
    def scene(connection: Connection, answer: Answer, taken: Taken) -> None:
        connection.feed(chunked(b"a"), chunked(b"b"))
        connection.lose()

    taken = Taken()
    _, failure = play(taken, scene)
    assert isinstance(failure, EngineLost)
    assert (taken.all, failure.unanswered) == ([b"a", b"b"], False)
