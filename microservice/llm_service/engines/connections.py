"""Connections to one engine over plain HTTP, by TCP or a Unix socket: made when they are needed, kept for a moment."""

import asyncio
import re
import socket
import time
from collections import deque
from collections.abc import Sequence
from urllib.parse import urlsplit

from llm_service.engines.address import Address
from llm_service.engines.upstream import (
    KEEP_ALIVE_SECONDS,
    AddressInfo,
    Header,
    Reply,
    not_connected,
    watchful_socket,
)
from llm_service.engines.wire import READ_BYTES, Wire
from llm_service.errors import BadRequest

_BUSY_SOCKET_SECONDS = 0.01  # how long to wait for room in the queue of a Unix socket that takes no more connections
_CLOSE = (b"connection", b"close")
_TARGET = re.compile(r"/[\x21-\x7e]*")


class Connections:
    """The connections to one engine, all of one event loop. Only the limit on requests limits their number."""

    def __init__(self, address: Address, connect_seconds: float) -> None:
        self._socket = address.socket
        parts = urlsplit(address.base)
        self._prefix = parts.path
        self._host = parts.hostname or ""
        self._port = parts.port or 80
        self._connect_seconds = connect_seconds
        key = f"authorization: Bearer {address.key}\r\n" if address.key is not None else ""
        self._fixed = f" HTTP/1.1\r\nhost: {parts.netloc}\r\naccept-encoding: identity\r\n{key}".encode()
        self._buffer = bytearray(READ_BYTES)
        self._open: set[Wire] = set()
        self._idle: deque[Wire] = deque()  # the one used last is taken first, so the oldest are at the left
        self._expiry: asyncio.TimerHandle | None = None

    async def open(
        self, method: str, path: str, body: bytes | None, headers: list[Header], *, fresh: bool = False
    ) -> Reply:
        """Send a request; return once its status is known."""
        head = self._head(method, path, body, [*headers, _CLOSE] if fresh else headers)
        wire = (None if fresh else self._kept()) or await self._connect()
        answer = wire.ask(head, body, bodiless=method == "HEAD", last=fresh)
        try:
            await answer.head()
        except BaseException:
            answer.close()
            raise
        return Reply(answer.status, answer.headers, answer, answer.close, answer.pour)

    def _head(self, method: str, path: str, body: bytes | None, headers: list[Header]) -> bytes:
        if not _TARGET.fullmatch(path):
            raise BadRequest("The path holds characters that no path may hold.")
        lines = [b"%b: %b\r\n" % header for header in headers]
        if body is not None or method != "GET":
            lines.append(b"content-length: %d\r\n" % len(body or b""))
        extra = b"".join(lines)
        if extra.count(b"\n") + extra.count(b"\r") != 2 * len(lines):
            raise BadRequest("A header of the request holds a line break.")
        return b"%b %b%b%b\r\n" % (method.encode(), (self._prefix + path).encode(), self._fixed, extra)

    def _kept(self) -> Wire | None:
        """Return the connection that was used last, if it can be used again."""
        oldest = time.monotonic() - KEEP_ALIVE_SECONDS
        while self._idle:
            wire = self._idle.pop()
            if wire.usable and wire.idle_since > oldest:
                return wire
            wire.abort()
        return None

    async def _connect(self) -> Wire:
        try:
            if self._socket is not None:
                async with asyncio.timeout(self._connect_seconds):
                    wire = await self._by_unix_socket(self._socket)
            else:
                wire = await self._by_tcp()
        except OSError as error:
            raise not_connected(error) from error
        self._open.add(wire)
        return wire

    def _wire(self) -> Wire:
        return Wire(self._buffer, self._give_back, self._open.discard)

    async def _by_unix_socket(self, path: str) -> Wire:
        while True:
            try:
                return (await asyncio.get_running_loop().create_unix_connection(self._wire, path))[1]
            except BlockingIOError:
                await asyncio.sleep(_BUSY_SOCKET_SECONDS)

    async def _by_tcp(self) -> Wire:
        failure = OSError()
        for info in await self._addresses():
            try:
                async with asyncio.timeout(self._connect_seconds):
                    return await self._to(info)
            except OSError as error:
                # Of several addresses, the one that refuses says most: its machine is there.
                failure = failure if isinstance(failure, ConnectionRefusedError) else error
        raise failure

    async def _addresses(self) -> Sequence[AddressInfo]:
        try:
            return socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:  # a name, which may take long to look up
            async with asyncio.timeout(self._connect_seconds):
                loop = asyncio.get_running_loop()
                return await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)

    async def _to(self, info: AddressInfo) -> Wire:
        loop = asyncio.get_running_loop()
        made = watchful_socket(info)
        try:
            made.setblocking(False)
            await loop.sock_connect(made, info[4])
            return (await loop.create_connection(self._wire, sock=made))[1]
        except BaseException:
            made.close()
            raise

    def _give_back(self, wire: Wire) -> None:
        wire.idle_since = time.monotonic()
        self._idle.append(wire)
        if self._expiry is None:
            self._expiry = asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        while self._idle:
            left = self._idle[0].idle_since + KEEP_ALIVE_SECONDS - time.monotonic()
            if left > 0:
                self._expiry = asyncio.get_running_loop().call_later(left, self._expire)
                return
            self._idle.popleft().abort()

    async def aclose(self) -> None:
        """Close every connection to the engine."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._idle.clear()
        for wire in list(self._open):
            wire.abort()
        await asyncio.sleep(0)  # their ends are noticed in the loop's next turn
