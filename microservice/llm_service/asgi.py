"""Small things that the raw ASGI endpoint needs: reading a body, writing a reply, noticing that the client left."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from starlette.types import Receive, Send

from llm_service.errors import BodyTooLarge

# Room for several images in base64; a text prompt of a million tokens is about 5 MiB.
MAX_BODY_BYTES = 64 * 1024 * 1024

Header = tuple[bytes, bytes]


async def read_body(receive: Receive) -> bytes | None:
    """Return the request's body, or None if the client left before it was complete. Raises BodyTooLarge."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise BodyTooLarge(f"The body is larger than {MAX_BODY_BYTES // 1024**2} MiB.")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def finish_or_leave(work: Coroutine[Any, Any, None], receive: Receive) -> bool:
    """Run `work`, but cancel it the moment the client leaves; say whether it finished."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return True
        return False
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Writer:
    """Writes one reply: whole, or piece by piece."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def whole(self, status: int, body: bytes, content_type: str, headers: Iterable[Header] = ()) -> None:
        """Send a reply in one piece."""
        await self._start(status, content_type, (*headers, (b"content-length", str(len(body)).encode())))
        await self._send({"type": "http.response.body", "body": body})

    async def begin_stream(self, content_type: str, headers: Iterable[Header] = ()) -> None:
        """Send the headers of a stream that no cache and no proxy may hold back."""
        await self._start(200, content_type, (*headers, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")))

    async def piece(self, data: bytes) -> None:
        """Send a piece of a stream; waits while the client reads too slowly."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End a stream."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, status: int, content_type: str, headers: Iterable[Header]) -> None:
        self.started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", content_type.encode("latin-1")), *headers],
            }
        )
