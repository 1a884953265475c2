"""How much of a client is too much: the size of its body, the time it takes, the nesting of its JSON."""

import asyncio
import contextlib
import fcntl
import resource
import socket
import struct
import termios
from typing import Any

import orjson
from starlette.types import Receive, Scope

from llm_service.errors import BadRequest, BodyTooLarge, RequestTimeout

PARTIAL = "llm_service.partial"
"""In a request's scope when its body had not come with its head."""
LATE = "llm_service.late"
"""In a request's scope once its body has taken too long."""

MAX_DEPTH = 128  # of arrays and objects in each other: several times what schemas of tools have
MAX_FILES = 65536
UNSENT_BYTES = 128 * 1024
_TOO_DEEP = f"The body has more than {MAX_DEPTH} arrays and objects in each other."


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes | None:
    """Return the request's body, or None if the client left before it was complete.

    Raises BodyTooLarge, before anything is read if the length is known, and RequestTimeout.
    """
    if PARTIAL in scope and _declared(scope) > max_bytes:
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
        if LATE in scope:
            raise RequestTimeout("The body of the request took too long to come.")


def _declared(scope: Scope) -> int:
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {max_bytes // 1024**2} MiB.")


def json_of(raw: bytes) -> Any:
    """Return the JSON value of a body. Raises BadRequest, also for one that is nested deeper than MAX_DEPTH.

    The brackets are counted first: what has fewer than that cannot be nested too deeply.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(_TOO_DEEP if "depth" in error.msg else "The body is not valid JSON.") from None
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return value
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _values(outer) if isinstance(inner, list | dict)]
    if level:
        raise BadRequest(_TOO_DEEP)
    return value


def _values(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def most_connections() -> int:
    """Return how many clients may be connected at a time: half the files that may be open, since each needs an engine.

    The limit of open files is raised first, since many systems begin with 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return (MAX_FILES if soft == resource.RLIM_INFINITY else soft) // 2


def bounded(listener: socket.socket) -> socket.socket:
    """Let the kernel hold little of what a client does not read: it would hold megabytes of each connection.

    What is on its way to a client does not count, so fast ones stay as fast. Connections inherit it.
    """
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    return listener


def unread(transport: asyncio.Transport) -> int:
    """Return how many bytes were written that the other side has not yet taken, those in the kernel included.

    The kernel tells that it has room again only after megabytes, which a slow client may take minutes for.
    """
    queued = 0
    with contextlib.suppress(OSError):
        answer = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        (queued,) = struct.unpack("i", answer)
    return transport.get_write_buffer_size() + queued
