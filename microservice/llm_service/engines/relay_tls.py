"""Connections to an engine that is far away, by HTTPS or through a proxy: aiohttp's.

Imported only when an engine needs it, since aiohttp takes 15 MB.
"""

import io
import ssl
from typing import Any, Self

import aiohttp
from yarl import URL

from llm_service.engines.address import Address, goes_direct
from llm_service.engines.upstream import (
    KEEP_ALIVE_SECONDS,
    Header,
    Reply,
    broken_off,
    not_connected,
    not_http,
    passed_on,
    unreachable,
    watchful_socket,
)
from llm_service.errors import EngineTimeout, ServiceError

LARGE_BODY_BYTES = 2**20  # aiohttp warns above this


def translated(error: BaseException, *, unanswered: bool = False, reused: bool = False) -> ServiceError:
    """Say what a failure of aiohttp's means for the request; `unanswered` when no byte of a reply had come."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError | ssl.SSLError):
        return unreachable("its certificate is not accepted")
    if isinstance(error, aiohttp.ClientConnectorError):
        return not_connected(error.os_error)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return not_connected(TimeoutError())
    if isinstance(error, TimeoutError):
        return EngineTimeout("The engine took too long to answer.")
    if isinstance(error, aiohttp.ClientResponseError):
        return not_http()
    return broken_off(unanswered=unanswered, reused=reused)


class TlsConnections:
    """The connections to one engine, as `Connections` are, but aiohttp's, which does not say which were used before."""

    def __init__(self, address: Address, connect_seconds: float) -> None:
        self._base = address.base
        self._connect_seconds = connect_seconds
        self._headers = [("Accept-Encoding", "identity")]
        if address.key is not None:
            self._headers.append(("Authorization", f"Bearer {address.key}"))
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        if fresh not in self._sessions:
            how: dict[str, Any] = {"force_close": True} if fresh else {"keepalive_timeout": KEEP_ALIVE_SECONDS}
            self._sessions[fresh] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, socket_factory=watchful_socket, **how),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds),
                trust_env=not goes_direct(self._base),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept"),
            )
        return self._sessions[fresh]

    async def open(
        self, method: str, path: str, body: bytes | None, headers: list[Header], *, fresh: bool = False
    ) -> Reply:
        """Send a request; return once its status is known."""
        sent = self._headers + [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        # A file is sent in pieces, between which other requests get their turn; bytes go in one.
        data = io.BytesIO(body) if body is not None and len(body) > LARGE_BODY_BYTES else body
        url = URL(self._base + path, encoded=True)
        try:
            session = self._session(fresh=fresh)
            response = await session.request(method, url, data=data, headers=sent, allow_redirects=False)
        except (aiohttp.ClientError, OSError) as error:
            raise translated(error, unanswered=True, reused=not fresh) from error
        # Not release(): the engine stops generating only when the connection goes. After the last byte the connection
        # is back in the pool already, and close() does nothing.
        told = passed_on([(name.lower(), value) for name, value in response.raw_headers])
        return Reply(response.status, told, _Body(response), response.close)

    async def aclose(self) -> None:
        """Close every connection to the engine."""
        for session in self._sessions.values():
            await session.close()


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
