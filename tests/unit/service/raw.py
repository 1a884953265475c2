"""A client that sends any bytes it likes, in its own time, and reads what comes back."""

import json
import socket
import time
from collections.abc import Iterable, Iterator
from http.client import HTTPResponse
from typing import Any, Self

import orjson

from tests.unit.service.door import OPENAI_BODY, Door

BODY = json.dumps(OPENAI_BODY).encode()
STREAM = json.dumps({**OPENAI_BODY, "stream": True}).encode()
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"


class Raw:
    """One connection to a door."""

    def __init__(self, door: Door, *pieces: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", door.service.port), timeout=20)
        self.file = self.socket.makefile("rb")
        for piece in pieces:
            self.send(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send bytes; say whether the door still took them."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def drip(self, pieces: Iterable[bytes], pause: float) -> int:
        """Send piece by piece until the door takes no more; return how many it took."""
        taken = 0
        for piece in pieces:
            if not self.send(piece) or self.readable():
                break
            taken += 1
            time.sleep(pause)
        return taken

    def readable(self) -> bool:
        """Say whether an answer, or the end, has come."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        finally:
            self.socket.settimeout(20)
        return True

    def sip(self, times: int, size: int, pause: float) -> bytes:
        """Read a little, again and again."""
        data = b""
        for _ in range(times):
            data += self.socket.recv(size)
            time.sleep(pause)
        return data

    def reply(self, method: str = "GET") -> "Answer":
        """Read one answer; one to HEAD has no body."""
        response = HTTPResponse(_Kept(self.file), method=method)  # type: ignore[arg-type]
        response.begin()
        return Answer(response.status, dict(response.getheaders()), response.read())

    def answers(self, method: str) -> list["Answer"]:
        """Read every answer until the door closes; the method is that of the first request."""
        found: list[Answer] = []
        try:
            while self.file.peek(1) and (not found or found[-1].headers.get("connection") != "close"):
                found.append(self.reply("GET" if found else method))
        except ConnectionResetError:
            pass
        return found

    def rest(self) -> bytes:
        """Read until the door closes."""
        try:
            return self.file.read()
        except ConnectionResetError:
            return b"<reset>"


class _Kept:
    """A connection's file, which the end of one answer does not close."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def makefile(self, *_: object) -> Self:
        return self

    def close(self) -> None:
        """Keep it open."""


class Answer:
    """Status, headers and body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    @property
    def error(self) -> Any:
        """What OpenAI's envelope holds."""
        return orjson.loads(self.body)["error"]


def post(body: bytes, *headers: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    """A request with a body and its length."""
    lines = (b"POST %b HTTP/1.1" % path, b"Host: x", b"Content-Length: %d" % len(body), *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks, without its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


def alive(door: Door) -> bool:
    """Whether the door still answers a chat."""
    with Raw(door, post(BODY)) as client:
        return client.reply().status == 200


def endless(piece: bytes) -> Iterator[bytes]:
    """The same bytes, for ever."""
    while True:
        yield piece
