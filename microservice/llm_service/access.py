"""One log line per request, the request's id, and the last net under every fault of ours."""

import logging
import re
import time
from dataclasses import dataclass
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_service.asgi import Writer
from llm_service.errors import Unexpected, openai_body

_log = logging.getLogger("llm_service.access")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,128}")
_KEY = "llm_service.exchange"
LONGEST_LOGGED = 128  # characters of what a client chose: a path, a model's name
_PROBES = ("/health", "/ready")  # asked every few seconds, by machines: their lines would bury the others


@dataclass(slots=True)
class Exchange:
    """What the access line says about one request. Never a prompt, never an answer."""

    request_id: str
    status: int = 0
    form: str | None = None
    model: str | None = None
    stream: bool | None = None
    outcome: str = "ok"
    engine: str | None = None
    retries: int = 0
    bytes_out: int = 0
    first_byte_at: float | None = None


def exchange_of(scope: Scope) -> Exchange:
    """Return the record of the request that this scope belongs to."""
    exchange: Exchange = scope[_KEY]
    return exchange


class AccessLog:
    """Pure ASGI, since Starlette's BaseHTTPMiddleware hides disconnects and turns a broken stream into a clean end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()
        exchange = scope[_KEY] = Exchange(_request_id(scope))
        id_header = (b"x-request-id", exchange.request_id.encode())

        async def noted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], id_header]
            else:
                exchange.bytes_out += len(message.get("body", b""))
                if exchange.first_byte_at is None:
                    exchange.first_byte_at = time.perf_counter()
            await send(message)

        try:
            await self._app(scope, receive, noted_send)
        except Exception:
            exchange.outcome = "fault"
            _log.exception("fault in request %s", exchange.request_id)
            if exchange.status:
                raise  # the reply has begun: only a broken connection tells the client that it is not complete
            error = Unexpected(f"Something went wrong here; the log knows it as {exchange.request_id}.")
            await Writer(noted_send).whole(error.status, openai_body(error), "application/json")
        finally:
            if scope["path"] not in _PROBES or exchange.outcome != "ok":
                _log.info("request", extra={"fields": _line(scope, exchange, started_at)})


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return uuid4().hex


def _line(scope: Scope, exchange: Exchange, started_at: float) -> dict[str, object]:
    first = exchange.first_byte_at
    line: dict[str, object] = {
        "request_id": exchange.request_id,
        "method": scope["method"],
        "path": scope["path"][:LONGEST_LOGGED],
        "status": exchange.status,
        "outcome": exchange.outcome,
        "form": exchange.form,
        "model": exchange.model,
        "stream": exchange.stream,
        "engine": exchange.engine,
        "retries": exchange.retries or None,
        "bytes": exchange.bytes_out,
        "first_byte_ms": None if first is None else round((first - started_at) * 1000, 2),
        "total_ms": round((time.perf_counter() - started_at) * 1000, 2),
    }
    return {name: value for name, value in line.items() if value is not None}
