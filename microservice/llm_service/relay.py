"""The only file that speaks HTTP to the engine: bytes in, bytes out, and what each failure means."""

import asyncio
import io
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self

import aiohttp
from yarl import URL

from llm_service.address import Address, goes_direct
from llm_service.errors import EngineLost, EngineNotReady, EngineTimeout, ServiceError

# vLLM closes idle connections after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE); a request sent at that moment would be lost.
KEEP_ALIVE_SECONDS = 3.0
# A machine that loses its power says nothing: after 15 s of silence its kernel is asked three times, 5 s apart. What
# was sent and not acknowledged is given up after 30 s (milliseconds here), not after Linux' quarter of an hour.
_GONE_MACHINE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
LARGE_BODY_BYTES = 2**20  # aiohttp warns above this
# What a reply says about the connection and the machine that it came from, which is the engine's and not ours.
_NOT_PASSED_ON = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade", b"date", b"server"),
    }
)

Header = tuple[bytes, bytes]


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


class Connector(Protocol):
    """What carries requests to the engine."""

    async def open(
        self, method: str, path: str, body: bytes | None, headers: list[Header], *, fresh: bool = False
    ) -> Reply:
        """Send a request; return once its status is known. Raises ServiceError.

        `path` is as the client sent it, its query included. `headers` have names in lower case and say nothing about
        the connection, the body's length or the engine's key: those are added. `fresh` asks for a connection that was
        not used before: one that was may have been closed a moment ago.
        """

    async def aclose(self) -> None:
        """Close every connection to the engine; may be called again."""


def translated(error: BaseException, *, unanswered: bool = False) -> ServiceError:
    """Say what a failure of the HTTP client means for the request; `unanswered` when no byte of a reply had come."""
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, ConnectionRefusedError | FileNotFoundError):  # no listener, or no socket yet
            return EngineNotReady("The engine is starting: nothing listens at its address yet.", phase=Phase.STARTING)
        reason = "no such name, or no route to it"
        if isinstance(error.os_error, PermissionError):
            reason = "this user may not open its socket"
        return EngineNotReady(f"The engine is unreachable: {reason}.", phase=Phase.UNREACHABLE)
    if isinstance(error, ssl.SSLError | aiohttp.ClientSSLError):
        return EngineNotReady("The engine is unreachable: its certificate is not accepted.", phase=Phase.UNREACHABLE)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return EngineNotReady("The engine is unreachable: nothing answers at its address.", phase=Phase.UNREACHABLE)
    if isinstance(error, TimeoutError):
        return EngineTimeout("The engine took too long to answer.")
    if isinstance(error, aiohttp.ClientResponseError):
        return EngineLost("The engine answered with something that is not HTTP.")
    return EngineLost("The engine closed the connection before its answer was complete.", unanswered=unanswered)


def watchful_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """Make a socket that notices within half a minute that the machine at its other end is gone."""
    family, kind, protocol, _, _ = info
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _GONE_MACHINE.items():
        if hasattr(socket, name):  # Linux has them all
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


class Relay:
    """Connections to one engine, for chat requests and for looking at its state.

    `start` opens the pool in the running event loop; nothing can be sent before.
    """

    _kept: aiohttp.ClientSession
    _fresh: aiohttp.ClientSession

    def __init__(self, address: Address, connect_seconds: float) -> None:
        self._address = address
        self._base = address.base
        self._connect_seconds = connect_seconds
        self._headers = [("Accept-Encoding", "identity")]
        if address.key is not None:
            self._headers.append(("Authorization", f"Bearer {address.key}"))

    async def start(self) -> None:
        """Make ready for connections: those that are kept for the next request, and those for one only."""
        self._kept = self._session(keepalive_timeout=KEEP_ALIVE_SECONDS)
        self._fresh = self._session(force_close=True)

    def _session(self, **how: Any) -> aiohttp.ClientSession:
        path = self._address.socket
        return aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path, limit=0, **how)
            if path
            else aiohttp.TCPConnector(limit=0, socket_factory=watchful_socket, **how),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds),
            trust_env=not goes_direct(self._address.base),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept"),
        )

    async def open(
        self, method: str, path: str, body: bytes | None, headers: list[Header], *, fresh: bool = False
    ) -> Reply:
        """Send a request; return once its status is known."""
        response = await self._request(self._fresh if fresh else self._kept, method, path, body, headers)
        # Not release(): the engine stops generating only when the connection goes. After the last byte the connection
        # is back in the pool already, and close() does nothing.
        return Reply(response.status, passed_on(response.raw_headers), _Body(response), response.close)

    async def get(self, path: str, timeout_seconds: float) -> tuple[int, str, bytes]:
        """Fetch a small resource whole: status, content type, body. Raises ServiceError."""
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await self._request(self._fresh, "GET", path)
                try:
                    body = b"".join([chunk async for chunk in _Body(response)])
                finally:
                    response.close()
        except TimeoutError:
            raise EngineTimeout("The engine took too long to answer.") from None
        return response.status, response.headers.get("Content-Type", "application/json"), body

    async def _request(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Iterable[Header] = (),
    ) -> aiohttp.ClientResponse:
        sent = self._headers + [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        # A file is sent in pieces, between which other requests get their turn; bytes go in one.
        data = io.BytesIO(body) if body is not None and len(body) > LARGE_BODY_BYTES else body
        try:
            url = URL(self._base + path, encoded=True)
            return await session.request(method, url, data=data, headers=sent, allow_redirects=False)
        except (aiohttp.ClientError, OSError) as error:
            raise translated(error, unanswered=True) from error

    async def aclose(self) -> None:
        """Close every connection to the engine."""
        await self._kept.close()
        await self._fresh.close()


def passed_on(headers: Iterable[Header]) -> list[Header]:
    """Return the headers of a reply that concern the client, names in lower case."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {part.strip().lower() for name, value in lowered if name == b"connection" for part in value.split(b",")}
    return [(name, value) for name, value in lowered if name not in _NOT_PASSED_ON and name not in named]


class _Body:
    """The body of a reply. A class and not a generator, which would end when waiting for a piece is cancelled."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        self._unanswered = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise translated(error, unanswered=self._unanswered) from error
        if not piece:
            raise StopAsyncIteration
        self._unanswered = False
        return piece
