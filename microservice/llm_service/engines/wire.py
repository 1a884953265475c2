"""One connection to an engine: httptools parses, this keeps account of what was asked and what has come."""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from llm_service.engines.answer import Answer
from llm_service.engines.lone_chunks import LoneChunks
from llm_service.engines.upstream import Straight, not_http, passed_on

LONGEST_HEAD_BYTES = 64 * 1024  # before the status is known; vLLM's heads have a few hundred
READ_BYTES = 16 * 1024  # at once; uvloop would read 256,000, which a slow client then holds for long
JOINED_BYTES = 64 * 1024  # a head and a body up to this long are cheaper to copy than to write as two
MOST_HELD_BYTES = 16 * 1024  # of a body that nobody takes; beyond it nothing is read, and the engine has to wait


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
        self._between = False  # two chunks of a body: what comes next is the head of one
        self._chunks = 0  # that ended with what came last
        self._straight: Straight | None = None
        self._lone: LoneChunks | None = None  # reads in place of this, while there is one
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
        self._framed = self._complete = self._kept = self._between = False
        self._head_bytes = 0
        if body is not None and len(body) > JOINED_BYTES:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head + body if body else head)
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

    def go_straight(self, straight: Straight | None) -> None:
        """Offer chunks of the body that come alone to this, before they are parsed."""
        self._straight = straight
        if straight is None:
            self._read_itself()

    def _read_itself(self) -> None:
        if self._lone is not None:
            self._lone = None
            self._transport.set_protocol(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what has come."""
        self.parse(self._buffer[:nbytes])

    def parse(self, data: bytes | memoryview) -> None:
        """Take what has come."""
        answer = self._answer
        if answer is None:  # nothing was asked
            self._transport.abort()
            return
        answer.heard = True
        self._chunks = 0
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._complete:
                self._give_up(answer)
                return
        # Of a head that has begun the parser says nothing.
        self._between = self._between and data[-2:] == b"\r\n"
        if self._straight is not None:
            self._choose_reader(self._straight, len(data))
        if answer.status == 0:
            self._head_bytes += len(data)
            if self._head_bytes > LONGEST_HEAD_BYTES:
                self._give_up(answer)
        elif self._complete:
            self._finish(answer)
        else:
            answer.wake()
            if answer.held > MOST_HELD_BYTES and not self._paused:
                self._paused = True
                self._transport.pause_reading()

    def _choose_reader(self, straight: Straight, size: int) -> None:
        if self._lone is not None:
            self._lone.straight = straight if self._between else None
            if size > READ_BYTES:
                self.go_straight(None)
        elif self._between and self._chunks == 1:
            self._lone = LoneChunks(self, straight)
            self._transport.set_protocol(self._lone)

    def _give_up(self, answer: Answer) -> None:
        self.abort()
        answer.fail(not_http())

    def _finish(self, answer: Answer) -> None:
        self._answer = None
        self.go_straight(None)
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
        self._lone = None
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

    def on_chunk_header(self) -> None:
        """Take note that a chunk begins."""
        self._between = False

    def on_chunk_complete(self) -> None:
        """Take note that it has come whole."""
        self._between = True
        self._chunks += 1

    def on_message_complete(self) -> None:
        """Take note that the answer is whole."""
        if self._answer is not None and self._answer.status and not self._complete:
            self._complete = True
            self._kept = not self._last and self._parser.should_keep_alive()
