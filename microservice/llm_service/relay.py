"""The only file that speaks HTTP to the engine: bytes in, bytes out, and what each failure means."""

import asyncio
import io
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import aiohttp

from llm_service.address import Address, goes_direct
from llm_service.errors import EngineLost, EngineNotReady, EngineTimeout, ServiceError

# vLLM closes idle connections after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE); a request sent at that moment would be lost.
KEEP_ALIVE_SECONDS = 3.0
# A machine that loses its power says nothing: after 15 s of silence its kernel is asked three times, 5 s apart. What
# was sent and not acknowledged is given up after 30 s (milliseconds here), not after Linux' quarter of an hour.
_GONE_MACHINE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
LARGE_BODY_BYTES = 2**20  # aiohttp warns above this


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
    """The engine's answer, its body still to be read. `close` ends the generation when it is not yet complete."""

    status: int
    content_type: str
    retry_after: str | None
    body: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]


class Connector(Protocol):
    """What carries a chat request to the engine."""

    async def open(self, body: bytes, request_id: str, *, fresh: bool = False) -> Reply:
        """Send a chat request; return once its status is known. Raises ServiceError.

        `fresh` asks for a connection that was not used before: one that was may have been closed a moment ago.
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
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if address.key is not None:
            self._headers["Authorization"] = f"Bearer {address.key}"

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

    async def open(self, body: bytes, request_id: str, *, fresh: bool = False) -> Reply:
        """Send a chat request; return once its status is known."""
        session = self._fresh if fresh else self._kept
        response = await self._request(session, "POST", "/v1/chat/completions", body, {"X-Request-Id": request_id})

        async def close() -> None:
            # Not release(): the engine stops generating only when the connection goes. After the last byte the
            # connection is back in the pool already, and this does nothing.
            response.close()

        return Reply(
            status=response.status,
            content_type=response.headers.get("Content-Type", "application/json"),
            retry_after=response.headers.get("Retry-After"),
            body=_chunks(response),
            close=close,
        )

    async def get(self, path: str, timeout_seconds: float) -> tuple[int, str, bytes]:
        """Fetch a small resource whole: status, content type, body. Raises ServiceError."""
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await self._request(self._fresh, "GET", path)
                try:
                    body = b"".join([chunk async for chunk in _chunks(response)])
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
        extra: dict[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        headers = self._headers | (extra or {})
        # A file is sent in pieces, between which other requests get their turn; bytes go in one.
        data = io.BytesIO(body) if body is not None and len(body) > LARGE_BODY_BYTES else body
        try:
            return await session.request(method, self._base + path, data=data, headers=headers, allow_redirects=False)
        except (aiohttp.ClientError, OSError) as error:
            raise translated(error, unanswered=True) from error

    async def aclose(self) -> None:
        """Close every connection to the engine."""
        await self._kept.close()
        await self._fresh.close()


async def _chunks(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    unanswered = True
    try:
        async for chunk in response.content.iter_any():
            unanswered = False
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise translated(error, unanswered=unanswered) from error
