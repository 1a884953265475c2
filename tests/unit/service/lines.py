"""One connection without a network: the bytes of the engine are fed to it."""

import asyncio
from typing import Any

from llm_service.engines import wire as wires
from llm_service.engines.answer import Answer
from llm_service.engines.wire import Wire
from llm_service.errors import EngineLost
from tests.unit.service.raw import chunked

REQUEST = b"POST /v1/x HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Line(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.unsent = 0
        self.paused = self.closed = False
        self.protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.closed = True


class Connection:
    """A wire on such a line."""

    def __init__(self) -> None:
        self.line = Line()
        self.free: list[Wire] = []
        self.wire = Wire(bytearray(wires.READ_BYTES), self.free.append, lambda _: None)
        self.line.set_protocol(self.wire)
        self.wire.connection_made(self.line)

    def ask(self, **how: bool) -> Answer:
        return self.wire.ask(REQUEST, None, bodiless=how.get("bodiless", False), last=how.get("last", False))

    def feed(self, *parts: bytes) -> None:
        for part in parts:
            while part and not self.line.closed:
                part = part[self._read(part) :]

    def _read(self, data: bytes) -> int:
        """Have the reader of the moment read, as an event loop does; return how much it took."""
        reader = self.line.protocol
        if isinstance(reader, asyncio.Protocol):
            reader.data_received(data)
            return len(data)
        buffer = reader.get_buffer(-1)
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        reader.buffer_updated(size)
        return size

    def lose(self, error: Exception | None = None) -> None:
        self.line.closed = True
        self.line.protocol.connection_lost(error)


async def take(answer: Answer) -> bytes:
    await answer.head()
    return b"".join([piece async for piece in answer])


def received(answer: Answer) -> bytes:
    return asyncio.run(take(answer))


def prefix_of(answer: Answer) -> tuple[bytes, EngineLost | None]:
    """What came of a body, and the failure after it."""

    async def collect() -> tuple[bytes, EngineLost | None]:
        taken = b""
        try:
            await answer.head()
            async for piece in answer:
                taken += piece
        except EngineLost as error:
            return taken, error
        return taken, None

    return asyncio.run(collect())


def framed(body: list[bytes], framing: str) -> bytes:
    if framing == "length":
        return OK + b"Content-Length: %d\r\n\r\n" % sum(map(len, body)) + b"".join(body)
    if framing == "chunked":
        chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in body if piece)
        return CHUNKED + chunks + b"0\r\nTrailer-Field: x\r\n\r\n"
    if framing == "plainly chunked":
        return CHUNKED + chunked(*filter(None, body)) + b"0\r\n\r\n"
    return OK + b"\r\n" + b"".join(body)


def split(data: bytes, points: list[int]) -> list[bytes]:
    cuts = sorted({point % (len(data) + 1) for point in points})
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if b > a]
