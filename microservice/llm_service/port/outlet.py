"""The short way to a client, past ASGI's messages: no task wakes up for an event, no reply is put together twice.

Of the time that an event takes at 512 streams, ASGI's messages and the tasks for them were a sixth (benchmarks/door).
"""

from collections.abc import Iterable
from typing import Self

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle


class Outlet:
    """The connection of one reply whose head is out."""

    __slots__ = ("_cycle", "flow", "write_raw")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self.flow = cycle.flow
        """`write_paused` says whether the client lags."""
        self.write_raw = cycle.transport.write
        """Sends what has the frame of a chunk already. Raises RuntimeError when the connection is closed."""

    @classmethod
    def of(cls, send: Send) -> Self | None:
        """Return the outlet behind an ASGI server's `send`; None when it is not uvicorn's own, or not in chunks."""
        cycle = getattr(send, "__self__", None)
        if not isinstance(cycle, RequestResponseCycle) or not cycle.chunked_encoding or cycle.scope["method"] == "HEAD":
            return None
        return cls(cycle)

    def write(self, data: bytes) -> bool:
        """Send a piece; say whether the client keeps up."""
        cycle = self._cycle
        if not cycle.disconnected:
            self.write_raw(b"%x\r\n%b\r\n" % (len(data), data))
        return not self.flow.write_paused

    async def room(self) -> None:
        """Wait until the client has read enough, or has left."""
        await self.flow.drain()


def write_whole(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
    """Send a reply in one piece, its length among its headers; say whether that was done.

    It is not where a reply is out of the ordinary, or the server behind `send` is not uvicorn: ASGI's messages are for
    that. Raises ValueError for a header that holds a line break.
    """
    cycle = getattr(send, "__self__", None)
    if (
        not isinstance(cycle, RequestResponseCycle)
        or cycle.response_started
        or cycle.disconnected
        or not cycle.keep_alive
        or cycle.flow.write_paused
        or cycle.scope["method"] == "HEAD"
    ):
        return False
    lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
    head = b"".join((STATUS_LINE[status], *lines, b"\r\n"))
    if head.count(b"\n") + head.count(b"\r") != 2 * len(lines) + 4:
        raise ValueError("A header of the reply holds a line break.")
    cycle.response_started = True
    cycle.transport.write(head)
    cycle.transport.write(body)
    cycle.response_complete = True
    cycle.message_event.set()
    cycle.on_response()
    return True
