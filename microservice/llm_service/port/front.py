"""What stands at the port: uvicorn's HTTP protocol, with the limits that it has none of.

uvicorn waits for ever for the rest of a head or of a body, takes any number of headers, and closes a connection on a
client that still sends. Here each connection has a time by which it has to get on (`due`), which a sweep looks at, so
that a request costs no timer. Parsing stays llhttp's, which refuses what could be read in two ways.
"""

import asyncio
import logging
from collections import Counter
from math import inf
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llm_service.port.held import Held
from llm_service.port.limits import LATE, PARTIAL, unread
from llm_service.port.refusals import refusal

MAX_HEAD_BYTES = 64 * 1024  # of the head of a request, and of what is neither head nor body: trailers, empty lines
MAX_HEADERS = 100
MAX_TARGET_BYTES = 8 * 1024
IDLE_SECONDS = 75.0  # nginx's; longer than the pools of common clients keep a connection, so that they close it first
LINGER_SECONDS = 5.0  # how long a client may go on sending after its answer, so that it reads the answer first
STALL_SECONDS = 60.0  # how long a client may take nothing at all of an answer
SWEEP_SECONDS = 0.5

_TOO_LARGE = f"The head of the request is larger than {MAX_HEAD_BYTES // 1024} KiB."
_OFFERS = (b"connection", b"upgrade", b"http2-settings")
_log = logging.getLogger("llm_service.front")


class _Lingering:
    """The transport, as an answer sees it that goes out before its request has come whole: closing waits."""

    def __init__(self, front: "Front") -> None:
        self.write = front.transport.write
        self.is_closing = front.transport.is_closing
        self.close = front.linger


class Front(HttpToolsProtocol):
    """One connection of a client. `serving` fills in what the settings say."""

    head_seconds: ClassVar[float]
    body_seconds: ClassVar[float]
    most_connections: ClassVar[int]
    refused: ClassVar[Counter[int]]
    sweeping: ClassVar[bool] = False
    scope: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.due = inf  # when this connection is late, by the loop's clock
        self._trailers: list[tuple[bytes, bytes]] | None = None  # `headers`, until the next head begins
        self._loose = 0  # bytes since the head or the body last got on
        self._timed = True  # whether `due` is about the head that has begun
        self._in_body = False
        self._offered = False  # whether the request offers to go on in another protocol
        self._refusal: tuple[int, str] | None = None
        self._deaf = False  # whether an error or an early answer was sent: what still comes is thrown away

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, unless there are too many connections."""
        super().connection_made(transport)
        self.due = self.loop.time() + self.head_seconds
        if len(self.connections) > self.most_connections:
            self._refuse(503, "This service has as many connections as it may have.")
        if not self.sweeping:
            _sweep(type(self), self.loop, self.connections)

    def data_received(self, data: bytes) -> None:
        """Parse what came; take note when a request has not come whole."""
        if self._deaf:
            return
        self._loose += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(*(self._refusal or (400, "The request is no valid HTTP.")))
        if self._loose or self._in_body or self.headers is not self._trailers:
            self._wait_for_rest()

    def _decline(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 with a request that offers another protocol, as Java's client does with each first one."""
        # The parser would take the body for that protocol. So it gets the head again, without the offer.
        self._offered = False
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name not in _OFFERS]
        if not self.parser.should_keep_alive():
            lines.append(b"connection: close")
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _wait_for_rest(self) -> None:
        if self._deaf or self.transport.is_closing():
            return
        self._loose += not self._in_body  # a head may have begun with the last bytes of the request before
        if self._loose > MAX_HEAD_BYTES:
            self._refuse(431, _TOO_LARGE)
        elif self._in_body and PARTIAL not in self.scope:
            self.scope[PARTIAL] = True
            self.due = self.loop.time() + self.body_seconds
            # An answer that goes out now ends the connection, and what still comes is thrown away.
            self._keep_alive = self.cycle.keep_alive
            self.cycle.keep_alive = False
            self.cycle.transport = _Lingering(self)  # type: ignore[assignment]
        elif not (self._in_body or self._timed or self._answering()):
            self._timed = True
            self.due = self.loop.time() + self.head_seconds

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head is too large."""
        if len(self.headers) > MAX_HEADERS:
            self._stop(431, f"The request has more than {MAX_HEADERS} headers.")
        if len(self.url) > MAX_TARGET_BYTES:
            self._stop(414, f"Path and query are longer than {MAX_TARGET_BYTES // 1024} KiB.")
        if self._loose > MAX_HEAD_BYTES and sum(len(n) + len(v) + 4 for n, v in self.headers) > MAX_HEAD_BYTES:
            self._stop(431, _TOO_LARGE)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._stop(400, "This service is no proxy.")
            self._offered = True
            return
        self._loose = 0
        self._timed = False
        self._in_body = True
        self.due = inf
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":  # its reply ends with its head
            self.cycle.transport = Held(self.cycle, self.transport)  # type: ignore[assignment]
        self.headers = self._trailers = []  # fields after a body must not become headers of the request

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body. As uvicorn's, and what follows, but for WebSockets."""
        self._loose = 0
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Take note that the request has come whole."""
        if self._offered:
            return
        self._loose = 0
        self._in_body = False
        cycle = self.cycle
        if PARTIAL in self.scope:
            self.due = inf
            cycle.transport = self.transport
            cycle.keep_alive = self._keep_alive
        cycle.more_body = False
        cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Go on with the next request of this connection; without a timer for each."""
        self.server_state.total_requests += 1
        if self._deaf:
            return
        if self.transport.is_closing():
            self.due = self.loop.time() + STALL_SECONDS
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._timed = bool(self._loose)
            self.due = self.loop.time() + (self.head_seconds if self._loose else IDLE_SECONDS)

    def pause_writing(self) -> None:
        """Wait for a client that reads too slowly, but not for one that has stopped."""
        super().pause_writing()
        self._unsent = unread(self.transport)  # of an answer, when it was last looked at
        self.due = self.loop.time() + STALL_SECONDS

    def resume_writing(self) -> None:
        """Go on once it has read."""
        super().resume_writing()
        if not self._deaf:
            self.due = inf if self._answering() else self.loop.time() + IDLE_SECONDS

    def _stop(self, status: int, message: str) -> None:
        self._refusal = (status, message)
        raise httptools.HttpParserError(message)

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, status: int, message: str) -> None:
        _log.info("request refused", extra={"fields": {"status": status, "reason": message}})
        self.refused[status] += 1
        self._deaf = True
        if self._answering():
            if self.cycle.response_started or self.pipeline or not self._in_body:
                self.transport.close()  # in the middle of an answer there is no room for another
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(refusal(status, message))
        self.linger()

    def linger(self) -> None:
        """Close once the client has read its answer: closing on bytes that were not read would reset the connection."""
        self._deaf = True
        self.due = self.loop.time() + LINGER_SECONDS
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.transport.can_write_eof():
                self.transport.write_eof()

    def late(self) -> None:
        """Do what a connection deserves that did not get on in time."""
        self.due = self.loop.time() + LINGER_SECONDS  # one that does not even close by then is cut
        if self.transport.is_closing():
            self.transport.abort()
        elif self.flow.write_paused:
            self._stalled()
        elif self._deaf or not (self._in_body or self._loose):
            self.transport.close()
        elif not self._in_body:
            self._refuse(408, f"The head of the request did not come within {self.head_seconds:g} s.")
        elif self.flow.read_paused:
            self.due = self.loop.time() + self.body_seconds  # nobody has asked for the rest yet
        else:
            self.due = inf
            self.scope[LATE] = True
            self.cycle.message_event.set()  # `limits.read_body` looks

    def _stalled(self) -> None:
        left = unread(self.transport)
        if left >= self._unsent:
            self.transport.abort()
        self._unsent = left
        self.due = self.loop.time() + STALL_SECONDS


def _sweep(kind: type[Front], loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
    now = loop.time()
    for connection in [one for one in connections if one.due < now]:
        connection.late()
    kind.sweeping = bool(connections)
    if connections:
        loop.call_later(SWEEP_SECONDS, _sweep, kind, loop, connections)
