"""The only way to an engine: bytes in, bytes out, and what each failure means."""

import asyncio
from urllib.request import getproxies

from llm_service.engines.address import Address, goes_direct
from llm_service.engines.connections import Connections
from llm_service.engines.upstream import KEEP_ALIVE_SECONDS, Connector, Header, Phase, Reply, passed_on
from llm_service.errors import EngineTimeout

__all__ = ["KEEP_ALIVE_SECONDS", "Connector", "Header", "Phase", "Relay", "Reply", "passed_on"]


def goes_far(address: Address) -> bool:
    """Say whether an engine is reached by HTTPS or through a proxy."""
    return address.base.startswith("https:") or (
        not goes_direct(address.base) and not getproxies().keys().isdisjoint({"http", "all"})
    )


def _connections(address: Address, connect_seconds: float) -> Connector:
    if goes_far(address):
        from llm_service.engines.relay_tls import TlsConnections

        return TlsConnections(address, connect_seconds)
    return Connections(address, connect_seconds)


class Relay:
    """One engine, for requests that are relayed and for looking at its state."""

    def __init__(self, address: Address, connect_seconds: float) -> None:
        self._connections = _connections(address, connect_seconds)
        self.open = self._connections.open
        """As `Connector` has it."""
        self.aclose = self._connections.aclose

    async def get(self, path: str, timeout_seconds: float) -> tuple[int, str, bytes]:
        """Fetch a small resource whole: status, content type, body. Raises ServiceError."""
        try:
            async with asyncio.timeout(timeout_seconds):
                reply = await self.open("GET", path, None, [], fresh=True)
                try:
                    body = b"".join([piece async for piece in reply.body])
                finally:
                    reply.close()
        except TimeoutError:
            raise EngineTimeout("The engine took too long to answer.") from None
        kinds = [value.decode("latin-1") for name, value in reply.headers if name == b"content-type"]
        return reply.status, kinds[0] if kinds else "application/json", body
