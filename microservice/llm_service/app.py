"""The application: which paths there are, and who serves each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from llm_service import __version__
from llm_service.access import AccessLog
from llm_service.chat import ChatEndpoint
from llm_service.connectors import build_connector
from llm_service.errors import RETRY_AFTER_SECONDS, EngineLost, NotFound, ServiceError, envelope, openai_body
from llm_service.health import EngineWatch, State
from llm_service.keys import Keys
from llm_service.lock import Lock
from llm_service.relay import Relay
from llm_service.settings import Settings

_JSON = "application/json"
_MODELS_SECONDS = 10.0


def create_app(settings: Settings) -> FastAPI:
    """Return the application for these settings. Connections are opened when it starts and closed when it stops."""

    relay = Relay(settings.engine, settings.connect_seconds)
    connector = build_connector(settings, relay)
    watch = EngineWatch(relay)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await relay.start()
        try:
            yield
        finally:
            await connector.aclose()
            await relay.aclose()

    app = FastAPI(
        title="Berth LLM service",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    if settings.keys_file is not None:
        app.add_middleware(Lock, keys=Keys(settings.keys_file))
    app.add_middleware(AccessLog)  # the last one added sees a request first
    app.add_exception_handler(HTTPException, _http_error)
    # Raw ASGI on the same app: bytes in, bytes out, none of FastAPI's per-request work on the path that counts.
    chat = ChatEndpoint(settings, connector, watch)
    app.router.routes.append(Route("/v1/chat/completions", chat, methods=["POST"]))
    _add_health(app, watch)

    @app.get("/v1/models")
    async def models() -> Response:
        """Pass on the engine's list of models."""
        try:
            status, content_type, body = await relay.get("/v1/models", _MODELS_SECONDS)
            if status == 401:
                raise EngineLost("The engine refuses this service's key; set VLLM_API_KEY.")
        except ServiceError as error:
            return _error(error)
        return Response(body, status, media_type=content_type)

    return app


def _add_health(app: FastAPI, watch: EngineWatch) -> None:
    @app.get("/health")
    async def health() -> Response:
        """Say that this process lives; the engine is not asked."""
        return Response(b'{"status":"alive"}', media_type=_JSON)

    @app.get("/ready")
    async def ready() -> Response:
        """Say whether a chat request would be answered, and if not, what the engine is doing."""
        return _state_reply(await watch.state(), {})

    @app.get("/v1/health_check")
    async def health_check() -> Response:
        """OPEA's health check, with the engine's state."""
        titles = {
            "Service Title": "opea_service@llm/MicroService",
            "Service Description": "OPEA Microservice Infrastructure",
        }
        return _state_reply(await watch.state(), titles)


def _state_reply(state: State, extra: dict[str, str]) -> Response:
    headers = {"Cache-Control": "no-store"}
    if not state.ready:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return Response(orjson.dumps({**extra, **state.public()}), 200 if state.ready else 503, headers, _JSON)


def _error(error: ServiceError) -> Response:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else None
    return Response(openai_body(error), error.status, headers, _JSON)


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 404:
        return _error(NotFound(f"There is no {request.url.path} here."))
    body = envelope(error.status_code, "RequestError", str(error.detail))
    return Response(body, error.status_code, error.headers, _JSON)
