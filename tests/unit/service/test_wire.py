"""What one connection makes of the bytes that come: every framing, split and cut, and what is no HTTP at all."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.service.lines import OK, Connection, framed, prefix_of, received, split

bodies = st.lists(st.binary(max_size=60) | st.just(b"\r\n\r\n") | st.just(b"HTTP/1.1 200 OK\r\n\r\n"), max_size=5)
points = st.lists(st.integers(0, 2000), max_size=12)
framings = st.sampled_from(["length", "chunked"])
announcements = st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"])


@settings(max_examples=150, deadline=None)
@given(replies=st.lists(st.tuples(bodies, framings, announcements, points), min_size=1, max_size=3))
def test_every_framing_and_split_gives_the_body_and_frees_the_connection(replies: list[Any]) -> None:
    connection = Connection()
    for body, framing, announcement, cuts in replies:
        answer = connection.ask()
        connection.feed(*split(announcement + framed(body, framing), cuts))
        assert received(answer) == b"".join(body)
        assert (answer.status, connection.free, connection.line.closed) == (200, [connection.wire], False)
        connection.free.clear()


@settings(max_examples=150, deadline=None)
@given(body=bodies, framing=framings, cuts=points, end=st.integers(0, 2000), reset=st.booleans())
def test_a_reply_that_is_cut_is_never_whole(body: Any, framing: str, cuts: Any, end: int, reset: bool) -> None:
    data = framed(body, framing)
    cut = data[: end % len(data)]
    connection = Connection()
    answer = connection.ask()
    connection.feed(*split(cut, cuts))
    connection.lose(ConnectionResetError() if reset else None)
    taken, error = prefix_of(answer)
    assert error is not None
    assert b"".join(body).startswith(taken)
    assert error.unanswered is not bool(taken)
    assert connection.free == []


@pytest.mark.parametrize("cut", [False, True])
def test_a_body_without_a_length_ends_with_its_connection_unless_that_is_reset(cut: bool) -> None:
    connection = Connection()
    answer = connection.ask()
    connection.feed(framed([b"all"], "until closed"))
    connection.lose(ConnectionResetError() if cut else None)
    taken, error = prefix_of(answer)
    assert (taken, error is not None, connection.free) == (b"all", cut, [])


@settings(max_examples=200, deadline=None)
@given(
    body=bodies,
    framing=st.sampled_from(["length", "chunked", "until closed"]),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=3)), max_size=3),
    cuts=points,
)
def test_bytes_that_are_wrong_end_in_an_answer_or_an_error_of_the_engines(
    body: Any, framing: str, changes: Any, cuts: Any
) -> None:
    data = bytearray(framed(body, framing))
    for place, bytes_ in changes:
        data[place % len(data) : place % len(data) + 2] = bytes_
    connection = Connection()
    answer = connection.ask()
    connection.feed(*split(bytes(data), cuts))
    if not connection.line.closed:
        connection.lose()
    _, error = prefix_of(answer)
    assert error is not None or 200 <= answer.status < 1000


@settings(max_examples=200, deadline=None)
@given(garbage=st.binary(min_size=1, max_size=200), cuts=points)
def test_garbage_never_looks_like_an_answer(garbage: bytes, cuts: Any) -> None:
    connection = Connection()
    answer = connection.ask()
    connection.feed(*split(b"x" + garbage, cuts))
    assert connection.line.closed
    taken, error = prefix_of(answer)
    assert taken == b""
    assert error is not None
    assert error.message == "The engine answered with something that is not HTTP."
    assert not error.unanswered


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 99 No\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"\r\n\r\n\x16\x03\x01",
    ],
)
def test_replies_whose_end_is_unclear_or_that_leave_http_are_refused(head: bytes) -> None:
    connection = Connection()
    answer = connection.ask()
    connection.feed(head)
    assert connection.line.closed
    assert prefix_of(answer)[1] is not None


def test_a_head_that_does_not_end_is_given_up() -> None:
    connection = Connection()
    answer = connection.ask()
    connection.feed(OK, *[b"X: " + b"a" * 1000 + b"\r\n"] * 80)
    assert connection.line.closed
    assert prefix_of(answer)[1] is not None
