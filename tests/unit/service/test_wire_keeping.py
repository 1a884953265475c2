"""When a connection is kept for the next request and when it is closed, and what passes over it meanwhile."""

import asyncio

import pytest

from llm_service.engines import wire as wires
from tests.unit.service.lines import OK, Connection, framed, prefix_of, received


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body_end_with_their_head(status: int) -> None:
    connection = Connection()
    answer = connection.ask()
    connection.feed(
        b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status if status == 304 else b"HTTP/1.1 204 X\r\n\r\n"
    )
    assert (received(answer), answer.status, connection.free) == (b"", status, [connection.wire])


def test_a_reply_to_head_has_no_body_and_its_connection_is_not_used_again() -> None:
    connection = Connection()
    answer = connection.ask(bodiless=True)
    connection.feed(OK + b"Content-Length: 5\r\n\r\n")
    assert (received(answer), (b"content-length", b"5") in answer.headers) == (b"", True)
    assert (connection.free, connection.line.closed) == ([], True)


def test_after_the_last_request_a_connection_is_closed() -> None:
    connection = Connection()
    answer = connection.ask(last=True)
    connection.feed(framed([b"hi"], "length"))
    assert (received(answer), connection.free, connection.line.closed) == (b"hi", [], True)


@pytest.mark.parametrize(
    "reply",
    [
        OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        OK + b"Content-Length: 2\r\n\r\nhi!",
        OK + b"Content-Length: 2\r\n\r\nhi" + OK + b"Content-Length: 6\r\n\r\nsecond",
    ],
    ids=["told to close", "old", "a byte too many", "a second reply"],
)
def test_a_connection_that_cannot_be_trusted_with_the_next_request_is_closed(reply: bytes) -> None:
    connection = Connection()
    answer = connection.ask()
    connection.feed(reply)
    assert received(answer) == b"hi"
    assert (connection.free, connection.line.closed) == ([], True)


def test_a_connection_on_which_something_comes_unasked_is_closed() -> None:
    connection = Connection()
    received_first = connection.ask()
    connection.feed(framed([b"hi"], "length"))
    assert received(received_first) == b"hi"
    connection.feed(OK)
    assert connection.line.closed


def test_a_reply_before_the_whole_request_was_sent_is_passed_on_and_ends_the_connection() -> None:
    connection = Connection()
    answer = connection.ask()
    connection.line.unsent = 1000
    connection.feed(framed([b"too large"], "length"))
    assert received(answer) == b"too large"
    assert (connection.free, connection.line.closed) == ([], True)


def test_headers_of_the_connection_stay_here_and_names_are_lower_case() -> None:
    connection = Connection()
    answer = connection.ask()
    connection.feed(
        OK + b"Date: now\r\nServer: uvicorn\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: 5\r\nX-Hop: 1\r\n"
        b"X-Request-Id: a\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Late: 1\r\n\r\n"
    )
    assert received(answer) == b""
    assert answer.headers == [(b"x-request-id", b"a"), (b"content-type", b"text/plain")]


def test_an_engine_has_to_wait_for_a_reader_that_does_not_take_what_came() -> None:
    connection = Connection()
    answer = connection.ask()
    connection.feed(OK + b"Content-Length: 1000000\r\n\r\n")
    sent = 0
    while not connection.line.paused:
        connection.feed(b"a" * 10_000)
        sent += 10_000
    assert sent <= wires.MOST_HELD_BYTES + 10_000

    async def one() -> bytes:
        return await anext(answer)

    assert len(asyncio.run(one())) == sent
    assert not connection.line.paused


def test_a_reply_that_was_closed_leaves_a_connection_alone_that_serves_the_next() -> None:
    connection = Connection()
    first = connection.ask()
    connection.feed(framed([b"a"], "length"))
    second = connection.ask()
    first.close()
    assert not connection.line.closed
    connection.feed(framed([b"b"], "length"))
    assert (received(first), received(second)) == (b"a", b"b")


def test_a_reply_that_is_closed_early_closes_its_connection_and_does_not_look_whole() -> None:
    connection = Connection()
    answer = connection.ask()
    connection.feed(OK + b"Content-Length: 5\r\n\r\nhi")
    answer.close()
    answer.close()
    assert connection.line.closed
    assert prefix_of(answer)[1] is not None


@pytest.mark.parametrize(("heard", "reused"), [(b"", True), (b"H", False)])
def test_a_connection_that_dies_when_it_is_used_again_is_told_from_one_that_had_begun_to_answer(
    heard: bytes, reused: bool
) -> None:
    connection = Connection()
    answer = connection.ask()
    connection.feed(framed([b"a"], "length"))
    assert received(answer) == b"a"
    answer = connection.ask()
    connection.feed(*[heard] if heard else [])
    connection.lose()
    error = prefix_of(answer)[1]
    assert error is not None
    assert (error.unanswered, error.reused) == (True, reused)


def test_a_first_request_that_is_lost_was_not_lost_to_an_old_connection() -> None:
    connection = Connection()
    answer = connection.ask()
    connection.lose(ConnectionResetError())
    error = prefix_of(answer)[1]
    assert error is not None
    assert (error.unanswered, error.reused) == (True, False)


async def test_a_wait_for_a_piece_that_is_cancelled_loses_nothing() -> None:
    connection = Connection()
    answer = connection.ask()
    connection.feed(OK + b"Content-Length: 4\r\n\r\n")
    for piece in (b"ab", b"cd"):
        waiting = asyncio.ensure_future(anext(answer))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait((waiting,))
        connection.feed(piece)
        assert await anext(answer) == piece
    with pytest.raises(StopAsyncIteration):
        await anext(answer)
