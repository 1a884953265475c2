"""An engine that speaks bytes: what it sends and how it ends a connection is up to the test, in whose loop it runs."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llm_service.engines.address import Address
from llm_service.engines.upstream import Connector, Reply

Answering = Callable[["Exchange"], Awaitable[None]]
BODY = b'{"choices":[{"message":{"content":"whole"}}]}'
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


@dataclass
class Exchange:
    """One request that came, and the connection that it came by."""

    head: bytes
    body: bytes
    number: int
    """How many requests had come by this connection before."""
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send bytes; wait while the other side takes none."""
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        """End the connection in order."""
        self.writer.close()

    def reset(self) -> None:
        """End the connection by a reset. On a Unix socket there is none."""
        ending: socket.socket = self.writer.get_extra_info("socket")
        if ending.family != socket.AF_UNIX:
            ending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def left(self) -> None:
        """Wait until the other side has closed the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


async def whole(exchange: Exchange) -> None:
    """Answer in full."""
    await exchange.send(WHOLE)


@dataclass
class RawEngine:
    """The engine. `answering` may be changed while it runs."""

    answering: Answering = whole
    address: Address = field(default_factory=lambda: Address(""))
    requests: list[Exchange] = field(default_factory=list)
    reads_bodies: bool = True
    connections: int = 0
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side closes it."""
        self.connections += 1
        self.open += 1
        number = 0
        try:
            while not writer.transport.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = [
                    line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                ]
                body = await reader.readexactly(int(length[0]) if length and self.reads_bodies else 0)
                exchange = Exchange(head, body, number, reader, writer)
                self.requests.append(exchange)
                await self.answering(exchange)
                number += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def idle(self) -> None:
        """Wait until no connection is open."""
        while self.open:  # noqa: ASYNC110 - a test is not worth an event
            await asyncio.sleep(0.001)


@asynccontextmanager
async def raw_engine(
    answering: Answering = whole, path: Path | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawEngine]:
    """Run an engine on a free port, or on a Unix socket."""
    engine = RawEngine(answering)
    if path is None:
        server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, ssl=tls)
        engine.address = Address(f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    else:
        server = await asyncio.start_unix_server(engine.serve, str(path))
        engine.address = Address(f"unix://{path}")
    try:
        yield engine
    finally:
        server.close()


async def opened(connector: Connector) -> Reply:
    """Ask; return once the head of the reply has come."""
    return await connector.open("POST", "/v1/x", b"{}", [])


async def finish(reply: Reply) -> bytes:
    """Return the body of a reply."""
    return b"".join([piece async for piece in reply.body])
