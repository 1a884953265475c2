"""A stream's short way to its client: past ASGI's messages, so that no task wakes up for an event.

Of the time that an event takes at 512 streams, ASGI's messages and the tasks for them were a sixth (benchmarks/door).
"""

from typing import Self

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Outlet:
    """The connection of one reply whose head is out."""

    __slots__ = ("_cycle", "_write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._write = cycle.transport.write

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
            self._write(b"%x\r\n%b\r\n" % (len(data), data))
        return not cycle.flow.write_paused

    async def room(self) -> None:
        """Wait until the client has read enough, or has left."""
        await self._cycle.flow.drain()
