"""One connection to an engine: httptools parses, this keeps account of what was asked and what has come."""

import asyncio
from collections.abc import Callable
from typing import Self, cast

import httptools

from llm_service.errors import ServiceError
from llm_service.upstream import Header, broken_off, not_http, passed_on

LONGEST_HEAD_BYTES = 64 * 1024  # before the status is known; vLLM's heads have a few hundred
READ_BYTES = 16 * 1024  # at once; uvloop would read 256,000, which a slow client then holds for long
MOST_HELD_BYTES = 16 * 1024  # of a body that nobody takes; beyond it nothing is read, and the engine has to wait


class Answer:
    """What comes back for one request: its status and headers, then its body as an asynchronous iterator."""

    __slots__ = (
        "_begun",
        "_failure",
        "_loop",
        "_pieces",
        "_waiter",
        "_wire",
        "headers",
        "heard",
        "held",
        "reused",
        "status",
    )

    def __init__(self, wire: "Wire", *, reused: bool) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.reused = reused
        self.heard = False
        """Whether a byte has come."""
        self.held = 0
        """How many bytes of the body nobody has taken yet."""
        self._wire: Wire | None = wire  # until it is complete, or lost
        self._pieces: list[bytes] = []
        self._begun = False
        self._failure: ServiceError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # looked up once: before Python 3.12 that is a system call

    async def head(self) -> None:
        """Wait until the status and the headers are there. Raises ServiceError."""
        while not self.status:
            await self._more()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._wire is None and self._failure is None:
                raise StopAsyncIteration
            await self._more()
        pieces, self._pieces, self.held = self._pieces, [], 0
        if self._wire is not None:
            self._wire.go_on()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _more(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._loop = self._loop or asyncio.get_running_loop()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def add(self, piece: bytes) -> None:
        """Take note of a piece of the body."""
        self._begun = True
        self._pieces.append(piece)
        self.held += len(piece)

    def wake(self) -> None:
        """Let whoever waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Take note that it is complete."""
        self._wire = None
        self.wake()

    def fail(self, failure: ServiceError | None = None) -> None:
        """Take note that no more will come; without a failure, because the connection broke off."""
        self._wire = None
        self._failure = failure or broken_off(unanswered=not self._begun, reused=self.reused and not self.heard)
        self.wake()

    def close(self) -> None:
        """End the generation if the answer is not complete. A connection that serves others by now is left alone."""
        if self._wire is not None:
            self._wire.abort()
            self.fail()


class Wire(asyncio.BufferedProtocol):
    """One connection. `ask` sends a request; once its answer is complete, `free` gets the connection back.

    `buffer` is what is read into. It is parsed at once, so all connections of an event loop may have the same one.
    """

    def __init__(self, buffer: bytearray, free: Callable[["Wire"], None], gone: Callable[["Wire"], None]) -> None:
        self.idle_since = 0.0
        """When it was last handed back, by time.monotonic."""
        self._buffer = memoryview(buffer)
        self._free = free
        self._gone = gone
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._used = False
        self._paused = False
        self._last = False
        self._bodiless = False  # HEAD is answered with the headers of a body that does not come
        self._framed = False
        self._complete = False
        self._kept = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    @property
    def usable(self) -> bool:
        """Whether it is open, as far as this side knows."""
        return not self._transport.is_closing()

    def ask(self, head: bytes, body: bytes | None, *, bodiless: bool, last: bool) -> Answer:
        """Send a request; return what will be its answer. After the last one the connection is closed."""
        answer = self._answer = Answer(self, reused=self._used)
        self._used = True
        self._bodiless = bodiless
        self._last = last
        self._framed = self._complete = self._kept = False
        self._head_bytes = 0
        if body:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head)
        return answer

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._answer = None
        self._transport.abort()

    def go_on(self) -> None:
        """Read again, if reading was paused."""
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what has come."""
        answer = self._answer
        if answer is None:  # nothing was asked
            self._transport.abort()
            return
        answer.heard = True
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._complete:
                self._give_up(answer)
                return
        if answer.status == 0:
            self._head_bytes += nbytes
            if self._head_bytes > LONGEST_HEAD_BYTES:
                self._give_up(answer)
        elif self._complete:
            self._finish(answer)
        else:
            if answer.held > MOST_HELD_BYTES and not self._paused:
                self._paused = True
                self._transport.pause_reading()
            answer.wake()

    def _give_up(self, answer: Answer) -> None:
        self.abort()
        answer.fail(not_http())

    def _finish(self, answer: Answer) -> None:
        self._answer = None
        self.go_on()
        # An engine that answered before it had the whole request reads the rest of it as the next one.
        if self._kept and not self._transport.get_write_buffer_size():
            self._free(self)
        else:
            self._transport.abort()
        answer.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        del self._parser  # they hold each other
        self._gone(self)
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if exc is None and answer.status and not self._framed:
            answer.end()  # a body without a length ends with its connection
        else:
            answer.fail()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Refuse a second answer to one request."""
        if self._complete:
            self._kept = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header that concerns the client, and what says where the body ends; trailers are left out."""
        answer = self._answer
        if answer is None or answer.status:
            return
        name = name.lower()
        if name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value.lower()):
            self._framed = True
        answer.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take the status; 100 and its like only announce another."""
        answer = self._answer
        if answer is None or self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            answer.headers.clear()
            self._framed = False
            return
        answer.headers = passed_on(answer.headers)
        answer.status = status
        self._complete = self._bodiless

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        if not self._complete and piece and self._answer is not None:
            self._answer.add(piece)

    def on_message_complete(self) -> None:
        """Take note that the answer is whole."""
        if self._answer is not None and self._answer.status and not self._complete:
            self._complete = True
            self._kept = not self._last and self._parser.should_keep_alive()
