"""What the service answers itself, through FastAPI: how it and its engines are, and what it has counted."""

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from llm_service import __version__
from llm_service.engines.health import State
from llm_service.engines.pool import Pool
from llm_service.engines.relay import Phase
from llm_service.errors import RETRY_AFTER_SECONDS, EngineLost, NotFound, ServiceError, envelope, openai_body
from llm_service.port.stopping import Drain
from llm_service.records import exposition
from llm_service.records.ended import Ended
from llm_service.records.metrics import Metrics
from llm_service.records.statistics import Statistics

_JSON = "application/json"


def add_health(app: FastAPI, pool: Pool, drain: Drain) -> None:
    """Add what tells whether requests would be answered."""

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


def add_models(app: FastAPI, pool: Pool, drain: Drain) -> None:
    """Add the list of models."""

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


def add_figures(app: FastAPI, ended: Ended, statistics: Statistics, metrics: Metrics, pool: Pool) -> None:
    """Add what was counted, for OPEA's tools and for Prometheus."""

    @app.get("/v1/statistics")
    async def figures() -> Response:
        """OPEA's latencies of the latest requests, in seconds."""
        ended.settle()
        return Response(orjson.dumps(statistics.report()), media_type=_JSON)

    @app.get("/metrics")
    async def scrape() -> Response:
        """What Prometheus collects."""
        await pool.state()  # so that engines are as they are now
        ended.settle()
        return Response(metrics.render(), media_type=exposition.CONTENT_TYPE)


def add_description(app: FastAPI, document: dict[str, Any]) -> None:
    """Add the description of all that this service answers."""
    written = orjson.dumps(document)

    @app.get("/openapi.json")
    async def description() -> Response:
        """What this service answers, for tools that read OpenAPI."""
        return Response(written, media_type=_JSON)


def add_errors(app: FastAPI) -> None:
    """Let FastAPI's own errors have the shape of all others."""

    async def told(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        if error.status_code == 404:
            return _error(NotFound(f"There is no {request.url.path} here."))
        body = envelope(error.status_code, "RequestError", str(error.detail))
        return Response(body, error.status_code, error.headers, _JSON)

    app.add_exception_handler(HTTPException, told)


def _state_reply(state: State, extra: dict[str, str]) -> Response:
    headers = {"Cache-Control": "no-store"}
    if not state.ready:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return Response(orjson.dumps({**extra, **state.public()}), 200 if state.ready else 503, headers, _JSON)


def _error(error: ServiceError) -> Response:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else None
    return Response(openai_body(error), error.status, headers, _JSON)
