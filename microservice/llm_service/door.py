"""The door: one ASGI middleware through which every request passes, so that no route can be forgotten.

It gives a request its id and its record, asks for a key, and looks the path up in the allow-list. What leads to the
engine goes there at once, past FastAPI; the rest is FastAPI's. Pure ASGI, since Starlette's BaseHTTPMiddleware hides
disconnects and turns a broken stream into a clean end.
"""

import logging
import random
import re
from time import perf_counter

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from llm_service.asgi import Writer
from llm_service.errors import ServiceError, Unauthorized, Unexpected, WrongMethod, error_headers, shaped
from llm_service.forward import Forward
from llm_service.lock.keys import Key, Keys, shown_key
from llm_service.paths import Kind, Paths, Route, public
from llm_service.records.ended import Ended
from llm_service.records.exchange import LONGEST_LOGGED, Exchange, Observer

_log = logging.getLogger("llm_service.door")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,128}")
_TRACE = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Door:
    """The service as one ASGI application: `app` answers what `forward` does not relay."""

    def __init__(
        self,
        app: FastAPI,
        forward: Forward,
        paths: Paths,
        keys: Keys | None,
        ended: Ended,
        begin_trace: Observer | None = None,
        end_trace: Observer | None = None,
        *,
        page: bool = True,
    ) -> None:
        self.app = app
        self._forward = forward
        self._paths = paths
        self._keys = keys
        self.ended = ended
        self._begin_trace = begin_trace
        self._end_trace = end_trace
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and take note of it when it has ended."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _known(scope)
        writer = Writer(send, exchange)
        method, path = scope["method"], scope["path"]
        route = self._paths.find(method, path, scope["raw_path"])
        try:
            if route is not None:
                exchange.route = route.template
            key = self._opened(scope, exchange)
            if route is None:
                if allowed := self._paths.methods(path, scope["raw_path"]):
                    raise WrongMethod(allowed)
            elif route.kind is not Kind.LOCAL:
                if self._begin_trace is not None:
                    self._begin_trace(exchange)
                await self._forward.serve(route, key, scope, receive, writer)
                return
            await self.app(scope, receive, _noted(writer))
        except ServiceError as error:
            await _refuse(error, route, writer)
        except Exception:
            exchange.outcome = "fault"
            _log.exception("fault in request %s", exchange.request_id)
            if writer.started:
                raise  # the reply has begun: only a broken connection tells the client that it is not complete
            told = Unexpected(f"Something went wrong here; the log knows it as {exchange.request_id}.")
            await _refuse(told, route, writer)
            exchange.outcome = "fault"
        finally:
            exchange.last_byte_at = perf_counter()
            if self._end_trace is not None:
                self._end_trace(exchange)
            self.ended.add(exchange)

    def _opened(self, scope: Scope, exchange: Exchange) -> Key | None:
        """Return the key that a request shows; raise Unauthorized when it shows none and needs one."""
        if self._keys is None:
            return None
        if (key := self._keys.find(shown_key(scope["headers"]))) is None:
            if self._page and public(scope["method"], scope["path"]):
                return None
            raise Unauthorized("This service asks for a key: Authorization: Bearer KEY.")
        exchange.key = key.name
        return key


def _known(scope: Scope) -> Exchange:
    request_id = trace = None
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            if _REQUEST_ID.fullmatch(value):
                request_id = str(value, "ascii")
        elif name == b"traceparent" and _TRACE.fullmatch(value):
            trace = str(value, "ascii")
    if request_id is None:
        request_id = f"{random.getrandbits(128):032x}"  # a name, no secret
    path: bytes = scope["raw_path"]
    return Exchange(request_id, scope["method"], path[:LONGEST_LOGGED].decode("latin-1"), traceparent=trace)


def _noted(writer: Writer) -> Send:
    """Return a `send` for FastAPI's replies, which takes note of them as the writer does."""

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            await writer.start(message["status"], message["headers"])
        elif message.get("more_body", False):
            await writer.piece(message.get("body", b""))
        else:
            await writer.end(message.get("body", b""))

    return send


async def _refuse(error: ServiceError, route: Route | None, writer: Writer) -> None:
    writer.exchange.outcome = error.kind
    status, body = shaped(error, route.family if route else None)
    await writer.whole(status, body, error_headers(error))
