"""The port: time limits, bodies and answers of any size and pace, and connections that end well."""

import socket
from collections.abc import Callable

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llm_service.port import front
from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, Door
from tests.unit.service.raw import BODY, GET, HEAD, STREAM, Raw, alive, chunked, endless, post

OpenDoor = Callable[..., Door]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "SWEEP_SECONDS", 0.02)


@pytest.fixture
def strict(open_door: OpenDoor) -> Door:
    """A door with short limits."""
    return open_door(LLM_HEADER_TIMEOUT_SECONDS="0.3", LLM_BODY_TIMEOUT_SECONDS="0.3", LLM_MAX_BODY_MIB="1")


def connections(door: Door) -> int:
    return len(door.service.server.server_state.connections)


@pytest.mark.parametrize("piece", [b"X-A: b\r\n", b"a", b"\r\n"])
def test_a_head_that_never_ends_is_408_however_steadily_it_comes(strict: Door, piece: bytes) -> None:
    with Raw(strict, b"" if piece == b"\r\n" else b"GET /health HTTP/1.1\r\n") as client:
        client.drip(endless(piece), 0.01)
        reply = client.reply()
        assert (reply.status, reply.error["type"]) == (408, "RequestTimeoutError")
        assert reply.headers["connection"] == "close"
        assert client.rest() == b""


def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(strict: Door) -> None:
    with Raw(strict) as client:
        assert client.rest() == b""


def test_an_idle_connection_is_kept_and_then_closed(strict: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "IDLE_SECONDS", 0.6)  # longer than a head may take
    with Raw(strict, GET) as client:
        assert client.reply().status == 200
        client.send(GET)
        assert client.reply().status == 200
        assert client.rest() == b""


@pytest.mark.parametrize(("start", "piece"), [(b"GET /", b"a"), (b"", b"\r\n")])
def test_a_second_head_that_never_ends_is_408_too(strict: Door, start: bytes, piece: bytes) -> None:
    with Raw(strict, GET) as client:
        assert client.reply().status == 200
        client.send(start)
        client.drip(endless(piece), 0.01)
        assert client.reply().status == 408


def test_half_a_head_does_not_cut_the_answer_before_it(strict: Door) -> None:
    strict.engine.knobs.pieces, strict.engine.knobs.piece_seconds = ["a"] * 40, 0.02  # longer than a head may take
    with Raw(strict, post(STREAM) + b"GET /hea") as client:
        assert client.reply().body.endswith(b"data: [DONE]\n\n")
        assert client.reply().status == 408


def test_several_requests_in_one_piece_are_answered_in_their_order(strict: Door) -> None:
    with Raw(strict, post(BODY) + GET + post(BODY, path=b"/nothing") + GET) as client:
        assert [client.reply().status for _ in range(4)] == [200, 200, 404, 200]


@pytest.mark.parametrize("head", [b"Content-Length: 300\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_body_that_never_ends_is_408_and_the_engine_is_not_asked(strict: Door, head: bytes) -> None:
    with Raw(strict, HEAD + head) as client:
        client.drip(endless(b" " if b"Length" in head else chunked(b" ")), 0.01)
        reply = client.reply()
        assert (reply.status, reply.error["type"]) == (408, "RequestTimeoutError")
    assert not strict.engine.chats


def test_a_body_in_pieces_is_taken_and_the_connection_kept(strict: Door) -> None:
    with Raw(strict, HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY)) as client:
        client.drip([BODY[:5], BODY[5:20], BODY[20:]], 0.02)
        assert client.reply().status == 200
        client.send(post(BODY))
        assert client.reply().status == 200
    assert [record.body for record in strict.engine.chats] == [BODY, BODY]


def test_a_length_over_the_limit_is_413_before_the_body_is_asked_for(strict: Door) -> None:
    with Raw(strict, HEAD + b"Expect: 100-continue\r\nContent-Length: 1048577\r\n\r\n") as client:
        assert client.reply().status == 413


def test_a_client_that_waits_to_be_asked_for_its_body_is(door: Door) -> None:
    with Raw(door, HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)) as client:
        assert client.socket.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(BODY)
        assert client.reply().status == 200


@pytest.mark.parametrize("head", [b"Content-Length: 100000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_client_that_sends_far_too_much_can_read_why_not(strict: Door, head: bytes) -> None:
    piece = b" " * 100_000 if b"Length" in head else chunked(b" " * 100_000)
    with Raw(strict, HEAD + head) as client:
        assert all(client.send(piece) for _ in range(1000))  # nobody resets the connection on it
        reply = client.reply()
        assert (reply.status, reply.headers["connection"]) == (413, "close")
        assert client.rest() == b""


def test_a_client_that_goes_on_sending_after_its_answer_is_cut(strict: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "LINGER_SECONDS", 0.2)
    with Raw(strict, b"POST /nothing HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n") as client:
        assert client.reply().status == 404
        wait_until(lambda: not client.send(b" "), 20, "the door closes", interval=0.01)
    wait_until(lambda: connections(strict) == 0, 20, "nothing is left", interval=0.01)


def test_garbage_in_the_middle_of_an_answer_adds_nothing_to_it(door: Door) -> None:
    door.engine.knobs.hold = "after first piece"
    with Raw(door, post(STREAM)) as client:
        begun = client.socket.recv(65536)
        client.send(b"\x00garbage\r\n\r\n")
        assert b"400" not in client.rest()
    assert begun.startswith(b"HTTP/1.1 200")
    wait_until(lambda: door.engine.chats[-1].client_left, 20, "the engine is let go", interval=0.01)


def test_a_client_that_takes_nothing_of_its_answer_is_cut(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "STALL_SECONDS", 0.3)
    door.engine.knobs.pieces = ["a" * 2**20] * 100
    with Raw(door, post(STREAM)) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)
        wait_until(lambda: door.engine.chats and door.engine.chats[-1].client_left, 20, "it is cut", interval=0.01)


def test_a_client_that_reads_slowly_but_reads_is_not_cut(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "STALL_SECONDS", 0.5)
    door.engine.knobs.pieces = ["a" * 2**18] * 40
    with Raw(door) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)
        client.send(post(STREAM, b"Connection: close"))
        wait_until(client.readable, 20, "an answer comes", interval=0.01)
        text = client.sip(60, 30_000, 0.02)  # longer than the limit, in all
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        text += client.rest()
    assert text[-21:] == b"data: [DONE]\n\n\r\n0\r\n\r\n"


def test_beyond_the_most_connections_the_answer_is_503_at_once(open_door: OpenDoor) -> None:
    door = open_door()
    door.service.server.config.http_protocol_class.most_connections = 2  # type: ignore[attr-defined]
    with Raw(door, GET) as one, Raw(door, GET) as two:
        assert [one.reply().status, two.reply().status] == [200, 200]
        with Raw(door) as third:
            reply = third.reply()
            assert (reply.status, reply.error["type"]) == (503, "OverloadedError")
            assert int(reply.headers["retry-after"]) > 0
        one.send(post(BODY))
        assert one.reply().status == 200
    wait_until(lambda: connections(door) == 0, 20, "they are closed", interval=0.01)
    assert alive(door)


@pytest.mark.parametrize("path", [CHAT, "/health", "/nothing"])
def test_every_reply_is_safe_for_browsers(door: Door, path: str) -> None:
    reply = door.client.get(path)
    assert (reply.headers["x-content-type-options"], reply.headers["x-frame-options"]) == ("nosniff", "DENY")
    assert "server" not in reply.headers
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_uvicorn_still_has_what_the_port_builds_on() -> None:
    ours = {"late", "linger"}
    missing = [
        name
        for name, value in vars(front.Front).items()
        if callable(value) and not name.startswith("_") and name not in ours and not hasattr(HttpToolsProtocol, name)
    ]
    assert not missing, f"uvicorn has no {missing} to override any more"
