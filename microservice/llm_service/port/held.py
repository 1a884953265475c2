"""A reply's head goes out with its first bytes: one write instead of two."""

from typing import Any


class Held:
    """The connection as uvicorn's cycle of one reply sees it until the reply's first bytes are there."""

    __slots__ = ("_cycle", "_head", "_transport", "is_closing")

    def __init__(self, cycle: Any, transport: Any) -> None:
        self._cycle = cycle
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Keep a head; write what comes after it, and get out of the way."""
        if data.startswith(b"HTTP/1.1 100"):
            self._transport.write(data)  # what asks for the body
        elif not self._head:
            self._head = data
        else:
            self._cycle.transport = self._transport
            self._transport.write(self._head + data)

    def close(self) -> None:
        """Write what was kept, and close."""
        self._cycle.transport = self._transport
        self._transport.write(self._head)
        self._transport.close()
