"""The application: who serves what, and who is told of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from llm_service import __version__
from llm_service.config.settings import Settings
from llm_service.door import Door
from llm_service.engines.pool import Pool
from llm_service.forward import Forward
from llm_service.local import openapi
from llm_service.local import routes as local
from llm_service.local.page import page_routes
from llm_service.lock.admission import Admission
from llm_service.lock.keys import Keys
from llm_service.paths import Paths
from llm_service.port.stopping import Drain
from llm_service.records.access import access_log
from llm_service.records.ended import Ended
from llm_service.records.logs import Batch
from llm_service.records.metrics import Metrics
from llm_service.records.statistics import Statistics

if TYPE_CHECKING:
    from llm_service.records.tracing import Tracing


def create_app(
    settings: Settings,
    drain: Drain | None = None,
    batch: Batch | None = None,
    refused: Counter[int] | None = None,
) -> Door:
    """Return the application for these settings; its `app` is FastAPI's part.

    Connections are opened when it starts and closed when it stops. Once `drain` has begun, it takes no new requests and
    says so. `batch` takes the log's lines about requests; `refused` is what the port counts of what never became one.
    """
    pool = Pool(settings)
    drain = drain or Drain()
    tracing = _tracing(settings)
    statistics = Statistics()
    admission = Admission(settings)
    metrics = Metrics(admission, pool, Counter() if refused is None else refused)
    observers = (access_log(batch), statistics.finished, metrics.finished)
    ended = Ended(*observers) if batch is None else Ended(*observers, after=batch.flush)
    paths = Paths(settings.open_paths)
    keys = Keys(settings.keys_file) if settings.keys_file else None

    app = _fastapi(pool, tracing)
    local.add_errors(app)
    local.add_health(app, pool, drain)
    local.add_models(app, pool, drain)
    local.add_figures(app, ended, statistics, metrics, pool)
    local.add_description(app, openapi.document(paths, locked=keys is not None, page=settings.page))
    if settings.page:
        app.router.routes.extend(page_routes())

    forward = Forward(settings, pool, drain, admission)
    if tracing is None:
        return Door(app, forward, paths, keys, ended, page=settings.page)
    return Door(app, forward, paths, keys, ended, tracing.begin, tracing.finished, page=settings.page)


def _fastapi(pool: Pool, tracing: "Tracing | None") -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await pool.start()
        try:
            yield
        finally:
            await pool.aclose()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    return FastAPI(
        title="Berth LLM service",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )


def _tracing(settings: Settings) -> "Tracing | None":
    if settings.traces_endpoint is None:
        return None
    from llm_service.records.tracing import exporting  # an optional extra, and 10 MB of memory

    return exporting(settings.traces_endpoint)
