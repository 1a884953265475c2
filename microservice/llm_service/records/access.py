"""One log line for each request."""

import logging
from functools import partial
from time import perf_counter, time

from llm_service.records.exchange import Exchange, Observer
from llm_service.records.logs import Batch

_log = logging.getLogger("llm_service.access")
_PROBES = ("/health", "/ready")  # asked every few seconds, by machines: their lines would bury the others


def access_log(batch: Batch | None) -> Observer:
    """Return what logs a request that has ended: in a batch, or by `logging` where there is none."""
    return partial(_log_request, batch)


def _log_request(batch: Batch | None, exchange: Exchange) -> None:
    if exchange.outcome == "ok" and exchange.path in _PROBES:
        return
    fields = {name: value for name, value in _line(exchange).items() if value is not None}
    if batch is not None:
        ago = 0.0 if exchange.last_byte_at is None else perf_counter() - exchange.last_byte_at
        batch.add(time() - ago, "request", fields)
    else:
        _log.info("request", extra={"fields": fields})


def _line(exchange: Exchange) -> dict[str, object]:
    began, ended = exchange.started_at, exchange.last_byte_at
    return {
        "request_id": exchange.request_id,
        "method": exchange.method,
        "path": exchange.path,
        "status": exchange.status,
        "outcome": exchange.outcome,
        "key": exchange.key,
        "form": exchange.dialect,
        "model": exchange.model,
        "stream": exchange.stream,
        "engine": exchange.engine,
        "retries": exchange.retries or None,
        "trace_id": exchange.traceparent and exchange.traceparent[3:35],
        "bytes": exchange.bytes_out,
        "prompt_tokens": exchange.prompt_tokens,
        "completion_tokens": exchange.completion_tokens,
        "queued_ms": _milliseconds(exchange.queued_at, exchange.admitted_at),
        "first_byte_ms": _milliseconds(began, exchange.first_byte_at),
        "total_ms": _milliseconds(began, ended),
    }


def _milliseconds(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round((end - start) * 1000, 2)
