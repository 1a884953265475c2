"""The application: which paths there are, and who serves each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from llm_service import __version__, exposition, openapi
from llm_service.access import access_log
from llm_service.admission import Admission
from llm_service.door import Door
from llm_service.errors import RETRY_AFTER_SECONDS, EngineLost, NotFound, ServiceError, envelope, openai_body
from llm_service.forward import Forward
from llm_service.health import State
from llm_service.keys import Keys
from llm_service.logs import Batch
from llm_service.metrics import Metrics
from llm_service.page import page_routes
from llm_service.paths import Paths
from llm_service.pool import Pool
from llm_service.relay import Phase
from llm_service.settings import Settings
from llm_service.statistics import Statistics
from llm_service.stopping import Drain

if TYPE_CHECKING:
    from llm_service.tracing import Tracing

_JSON = "application/json"


def create_app(settings: Settings, drain: Drain | None = None, batch: Batch | None = None) -> Door:
    """Return the application for these settings; its `app` is FastAPI's part.

    Connections are opened when it starts and closed when it stops.

    Once `drain` has begun, it takes no new requests and says so. `batch` takes the log's lines about requests.
    """
    pool = Pool(settings)
    drain = drain or Drain()
    tracing = _tracing(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await pool.start()
        try:
            yield
        finally:
            await pool.aclose()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="Berth LLM service",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(HTTPException, _http_error)
    _add_health(app, pool, drain)
    if settings.page:
        app.router.routes.extend(page_routes())

    @app.get("/v1/models")
    async def models() -> Response:
        """Pass on the engine's list of models."""
        try:
            drain.refuse_new()
            status, content_type, body = await pool.models()
            if status == 401:
                raise EngineLost("The engine refuses this service's key; set VLLM_API_KEY.")
        except ServiceError as error:
            return _error(error)
        return Response(body, status, media_type=content_type)

    statistics = Statistics()

    @app.get("/v1/statistics")
    async def figures() -> Response:
        """OPEA's latencies of the latest requests, in seconds."""
        return Response(orjson.dumps(statistics.report()), media_type=_JSON)

    admission = Admission(settings)
    metrics = Metrics(admission, pool)

    @app.get("/metrics")
    async def scrape() -> Response:
        """What Prometheus collects."""
        await pool.state()  # so that engines are as they are now
        return Response(metrics.render(), media_type=exposition.CONTENT_TYPE)

    paths = Paths(settings.open_paths)
    keys = Keys(settings.keys_file) if settings.keys_file else None

    @app.get("/openapi.json")
    async def description() -> Response:
        """What this service answers, for tools that read OpenAPI."""
        told = openapi.document(paths, locked=keys is not None, page=settings.page)
        return Response(orjson.dumps(told), media_type=_JSON)

    forward = Forward(settings, pool, drain, admission)
    observers = (access_log(batch), statistics.finished, metrics.finished)
    if tracing is None:
        return Door(app, forward, paths, keys, observers)
    return Door(app, forward, paths, keys, (*observers, tracing.finished), tracing.begin)


def _tracing(settings: Settings) -> "Tracing | None":
    if settings.traces_endpoint is None:
        return None
    from llm_service.tracing import exporting  # an optional extra, and 10 MB of memory

    return exporting(settings.traces_endpoint)


def _add_health(app: FastAPI, pool: Pool, drain: Drain) -> None:
    async def state() -> State:
        if drain.begun:
            return State(Phase.DRAINING, "The service is stopping; running replies finish.")
        return await pool.state()

    @app.get("/health")
    async def health() -> Response:
        """Say that this process lives; the engine is not asked."""
        return Response(b'{"status":"alive"}', media_type=_JSON)

    @app.get("/ready")
    async def ready() -> Response:
        """Say whether a chat request would be answered, and if not, what the engine is doing."""
        return _state_reply(await state(), {})

    @app.get("/v1/health_check")
    async def health_check() -> Response:
        """OPEA's health check, with the engine's state."""
        titles = {
            "Service Title": "opea_service@llm/MicroService",
            "Version": __version__,
            "Service Description": "OPEA Microservice Infrastructure",
        }
        return _state_reply(await state(), titles)


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
