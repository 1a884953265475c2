"""The port: time limits, size limits, requests that could be read in two ways, and connections that end well."""

import json
import socket
from collections.abc import Callable, Iterator

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llm_service.port import front
from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPENAI_BODY, Door
from tests.unit.service.raw import Raw, chunked, post

OpenDoor = Callable[..., Door]
BODY = json.dumps(OPENAI_BODY).encode()
STREAM = json.dumps({**OPENAI_BODY, "stream": True}).encode()
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "SWEEP_SECONDS", 0.02)


@pytest.fixture
def strict(open_door: OpenDoor) -> Door:
    """A door with short limits."""
    return open_door(LLM_HEADER_TIMEOUT_SECONDS="0.3", LLM_BODY_TIMEOUT_SECONDS="0.3", LLM_MAX_BODY_MIB="1")


def connections(door: Door) -> int:
    return len(door.service.server.server_state.connections)


def alive(door: Door) -> bool:
    with Raw(door, post(BODY)) as client:
        return client.reply().status == 200


def endless(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


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


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"A: b\r\n" * 101, 431),
        (b"A: b\r\n" * 98, 200),
        (b"A: " + b"b" * 64 * 1024 + b"\r\n", 431),
        (b"A: " + b"b" * 60 * 1024 + b"\r\n", 200),
    ],
)
@pytest.mark.parametrize("by_pieces", [False, True])
def test_heads_have_a_largest_size(door: Door, lines: bytes, status: int, by_pieces: bool) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n"
    with Raw(door) as client:
        step = 5000 if by_pieces else len(request)
        client.drip((request[at : at + step] for at in range(0, len(request), step)), 0.001)
        assert client.reply().status == status


def test_a_path_too_long_is_414(door: Door) -> None:
    with Raw(door, b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        assert client.reply().status == 414


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 2\r\nContent-Length: 2",
        b"Content-Length: 2, 2",
        b"Content-Length: +2",
        b"Content-Length: 0x2",
        b"Content-Length: 99999999999999999999",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding : chunked",
        b"Content-Length: 2\r\n Transfer-Encoding: chunked",
        b"Content-Length: 2\nTransfer-Encoding: chunked",
        b"A\x00: b",
        b"A: b\x00",
        b"A b: c",
        b": c",
        b"A: b\rX: c",
    ],
)
def test_what_could_be_read_in_two_ways_is_400_and_closes(door: Door, headers: bytes) -> None:
    with Raw(door, HEAD + headers + b"\r\n\r\n{}" + GET) as client:
        reply = client.reply()
        assert (reply.status, reply.error["type"]) == (400, "BadRequestError")
        assert client.rest() == b""
    assert not door.engine.records
    assert alive(door)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
        b"GET http://x HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"\x00" * 100,
    ],
)
def test_what_is_not_http_is_400(door: Door, data: bytes) -> None:
    with Raw(door, data) as client:
        assert client.reply().status == 400
        assert client.rest() == b""


def test_fields_after_a_body_are_no_headers(open_door: OpenDoor, tmp_path: object) -> None:
    door = open_door()
    with Raw(door, HEAD + b"Transfer-Encoding: chunked\r\n\r\n") as client:
        client.send(chunked(BODY) + b"0\r\nX-Request-Id: smuggled\r\n")
        client.send(b"\r\n")
        reply = client.reply()
    assert reply.status == 200
    assert reply.headers["x-request-id"] != "smuggled"
    assert b"smuggled" not in repr(door.engine.chats[-1].headers).encode()


@pytest.mark.parametrize("line", [b"A: b\r\n", b"A" * 60])
def test_fields_after_a_body_have_a_largest_size(door: Door, line: bytes) -> None:
    with Raw(door, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY) + b"0\r\n") as client:
        client.drip(endless(line * 100), 0)
        assert client.reply().status in (400, 431)
    assert not [chat for chat in door.engine.chats if chat.body == BODY]


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


def test_java_which_offers_http2_with_each_first_request_is_served(door: Door) -> None:
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
    with Raw(door) as client:
        client.drip([post(BODY, *offer)[:-20], post(BODY, *offer)[-20:]], 0.02)
        assert client.reply().status == 200
        client.send(post(BODY, *offer) + post(BODY))
        assert [client.reply().status, client.reply().status] == [200, 200]
    assert [record.body for record in door.engine.chats[-3:]] == [BODY] * 3
    assert not {"upgrade", "http2-settings"} & set(door.engine.chats[-1].headers)


def test_a_websocket_is_answered_as_any_other_path_that_is_not_there(door: Door) -> None:
    with Raw(
        door, b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    ) as client:
        assert client.reply().status == 404


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
