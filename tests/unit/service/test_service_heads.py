"""Heads as the port reads them: their sizes, what is no HTTP, and what could be read in two ways."""

from collections.abc import Callable

import pytest

from tests.unit.service.door import Door
from tests.unit.service.raw import BODY, GET, HEAD, Raw, alive, chunked, endless, post

OpenDoor = Callable[..., Door]


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
