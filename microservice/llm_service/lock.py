"""Nothing answers without a key: a middleware in front of every route, so that no route can be forgotten."""

from starlette.types import ASGIApp, Receive, Scope, Send

from llm_service.access import exchange_of
from llm_service.asgi import Writer
from llm_service.errors import Unauthorized, openai_body
from llm_service.keys import Keys


class Lock:
    """Pure ASGI. Without one of the keys a request gets 401, whatever its path and method, and its body is not read."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if it shows a key."""
        if scope["type"] == "http" and not self._keys.allow(_shown(scope)):
            error = Unauthorized("This service asks for a key: Authorization: Bearer KEY.")
            exchange_of(scope).outcome = error.kind
            headers = [(b"www-authenticate", b"Bearer")]
            await Writer(send).whole(error.status, openai_body(error), "application/json", headers)
            return
        await self._app(scope, receive, send)


def _shown(scope: Scope) -> bytes:
    """Return the key in the request's Authorization header; empty when there is none, or more than one."""
    shown = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(shown) != 1:
        return b""
    scheme, _, key = shown[0].partition(b" ")
    return bytes(key.strip()) if scheme.lower() == b"bearer" else b""
