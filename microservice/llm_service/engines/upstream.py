"""What every way to an engine has in common: what a reply is, which headers pass, and what a failure means."""

import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from llm_service.errors import EngineLost, EngineNotReady

# vLLM closes idle connections after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE); a request sent at that moment would be lost.
KEEP_ALIVE_SECONDS = 3.0
# A machine that loses its power says nothing: after 15 s of silence its kernel is asked three times, 5 s apart. What
# was sent and not acknowledged is given up after 30 s (milliseconds here), not after Linux' quarter of an hour.
_GONE_MACHINE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
# What a reply says about the connection and the machine that it came from, which is the engine's and not ours.
NOT_PASSED_ON = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade", b"date", b"server"),
    }
)

Header = tuple[bytes, bytes]
Take = Callable[[bytes], bool]
"""Takes a piece of a body; says whether the next one may come at once."""
Straight = Callable[[bytes, int], bool]
"""May take a chunk of a chunked body as it came, and the length of the piece in it: says whether it did. The head and
the length are right; that a line ends where the chunk does is for it to see. What it leaves goes to `Take`."""
Pour = Callable[[Take, Straight | None], Awaitable[bool]]
AddressInfo = tuple[int, int, int, str, Any]
"""One of what `socket.getaddrinfo` returns."""


class Phase(StrEnum):
    """What the engine is doing, as far as its connections tell."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


@dataclass(slots=True)
class Reply:
    """The engine's answer, its body still to be read."""

    status: int
    headers: list[Header]
    """Names in lower case, without those of the connection, `date` and `server`."""
    body: AsyncIterator[bytes]
    """Pieces as they came, none empty. Raises ServiceError. Nothing is lost when waiting for a piece is cancelled."""
    close: Callable[[], None]
    """Ends the generation when the reply is not yet complete; may be called again, and at any time."""
    pour: Pour | None = None
    """Hands each piece of the body that is still to come to a function, until that asks to wait: returns whether the
    body has ended. A chunk that came alone is first offered to the other one, if there is one. Raises what `body`
    raises. Where there is none, the body can only be read."""


class Connector(Protocol):
    """What carries requests to the engine."""

    async def open(
        self, method: str, path: str, body: bytes | None, headers: list[Header], *, fresh: bool = False
    ) -> Reply:
        """Send a request; return once its status is known. Raises ServiceError.

        `path` is as the client sent it, its query included. `headers` have names in lower case and say nothing about
        the connection, the body's length or the engine's key: those are added. `fresh` asks for a connection of its
        own: one that was used before may have been closed a moment ago.
        """

    async def aclose(self) -> None:
        """Close every connection to the engine; may be called again."""


def passed_on(headers: list[Header]) -> list[Header]:
    """Return the headers of a reply, names in lower case, that concern the client."""
    named = {part.strip().lower() for name, value in headers if name == b"connection" for part in value.split(b",")}
    return [header for header in headers if header[0] not in NOT_PASSED_ON and header[0] not in named]


def watchful_socket(info: AddressInfo) -> socket.socket:
    """Make a socket that notices within half a minute that the machine at its other end is gone."""
    family, kind, protocol, _, _ = info
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in _GONE_MACHINE.items():
        if hasattr(socket, name):  # Linux has them all
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


def unreachable(reason: str) -> EngineNotReady:
    """Return the error for an engine to which there is no connection."""
    return EngineNotReady(f"The engine is unreachable: {reason}.", phase=Phase.UNREACHABLE)


def not_connected(error: OSError) -> EngineNotReady:
    """Say what it means that a connection could not be made."""
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):  # no listener, or no socket yet
        return EngineNotReady("The engine is starting: nothing listens at its address yet.", phase=Phase.STARTING)
    if isinstance(error, TimeoutError):
        return unreachable("nothing answers at its address")
    if isinstance(error, PermissionError):
        return unreachable("this user may not open its socket")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return unreachable("this service has too many open files")
    return unreachable("no such name, or no route to it")


def broken_off(*, unanswered: bool, reused: bool = False) -> EngineLost:
    """Return the error for a connection that ended before the answer did."""
    sentence = "The engine closed the connection before its answer was complete."
    return EngineLost(sentence, unanswered=unanswered, reused=reused)


def not_http() -> EngineLost:
    """Return the error for an answer that cannot be understood."""
    return EngineLost("The engine answered with something that is not HTTP.")
