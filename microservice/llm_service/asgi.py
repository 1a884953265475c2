"""Writing a reply in ASGI's own messages."""

from collections.abc import Sequence
from time import perf_counter

from starlette.types import Send

from llm_service.port.outlet import Outlet, write_whole
from llm_service.records.exchange import Exchange

Header = tuple[bytes, bytes]


class Writer:
    """Writes one reply, whole or piece by piece, with the request's id, and takes note of it in the record."""

    __slots__ = ("_send", "cut", "exchange", "started")

    def __init__(self, send: Send, exchange: Exchange) -> None:
        self._send = send
        self.exchange = exchange
        self.started = False
        self.cut = False
        """Whether a failure can only be told by closing the connection, since what has begun is no stream of events."""

    async def whole(self, status: int, body: bytes, headers: Sequence[Header]) -> None:
        """Send a reply in one piece; its length is added to the headers."""
        exchange = self.exchange
        named = [*headers, (b"content-length", b"%d" % len(body)), (b"x-request-id", exchange.request_id.encode())]
        if (b"connection", b"close") not in named and write_whole(self._send, status, named, body):
            self.started = True
            exchange.status = status
            self._ended(body)
            return
        await self.start(status, named[:-1])
        await self.end(body)

    async def start(self, status: int, headers: Sequence[Header]) -> None:
        """Send the status and the headers."""
        self.started = True
        self.exchange.status = status
        named = [*headers, (b"x-request-id", self.exchange.request_id.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": named})

    async def piece(self, data: bytes) -> None:
        """Send a piece of a stream; waits while the client reads too slowly."""
        exchange = self.exchange
        exchange.bytes_out += len(data)
        exchange.chunks += 1
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def outlet(self) -> Outlet | None:
        """Return the short way for the pieces of a stream whose first one was sent, where there is one."""
        return Outlet.of(self._send)

    async def comment(self) -> None:
        """Send an event that clients ignore, and that shows those on the way that the connection lives."""
        await self._send({"type": "http.response.body", "body": b": keep-alive\n\n", "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the rest, and end the reply."""
        self._ended(data)
        await self._send({"type": "http.response.body", "body": data})

    def _ended(self, data: bytes) -> None:
        exchange = self.exchange
        exchange.bytes_out += len(data)
        if exchange.first_byte_at is None:
            exchange.first_byte_at = perf_counter()
