"""OpenTelemetry's traces: one span for each relayed request, in the words of its gen_ai conventions.

An optional extra, imported only when the settings say where spans go. A span tells what the log tells: names, numbers
and times, never a prompt, an answer or a key. It stands between the client's span, if the client sent a `traceparent`,
and those of the engine, which is sent this one's.

https://github.com/open-telemetry/semantic-conventions-genai; its names are not yet stable.
"""

import os
import time

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from llm_service import __version__
from llm_service.engines.address import goes_direct
from llm_service.records.exchange import CLIENT_LEFT, Exchange

_SERVICE = "berth-llm"
_SEND_SECONDS = 5.0  # a collector that is away must not hold up the end of the service for longer
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
_context = TraceContextTextMapPropagator()


def exporting(endpoint: str) -> "Tracing":
    """Return traces that go to a collector's address, over HTTP and in batches, from a thread of their own."""
    session = requests.Session()
    session.trust_env = not goes_direct(endpoint)  # a proxy is not for this machine and its neighbours
    exporter = OTLPSpanExporter(endpoint, session=session, timeout=_SEND_SECONDS)
    return Tracing(BatchSpanProcessor(exporter))


class Tracing:
    """Makes a span of each request. The SDK's own variables, such as OTEL_TRACES_SAMPLER, mean what they always do."""

    def __init__(self, processor: SpanProcessor) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME") or _SERVICE
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("llm_service", __version__)

    def begin(self, exchange: Exchange) -> None:
        """Begin a request's span; what the engine gets as `traceparent` is this span."""
        parent = _context.extract({"traceparent": exchange.traceparent}) if exchange.traceparent else None
        began = _nanoseconds(exchange.started_at)
        span = self._tracer.start_span(exchange.route, parent, SpanKind.SERVER, start_time=began)
        said = span.get_span_context()
        if said.is_valid:
            exchange.traceparent = f"00-{said.trace_id:032x}-{said.span_id:016x}-{said.trace_flags:02x}"
        exchange.span = span

    def finished(self, exchange: Exchange) -> None:
        """End the span of a request that has ended."""
        span = exchange.span
        if not isinstance(span, Span) or not span.is_recording():
            return
        operation = _OPERATIONS.get(exchange.route)
        if operation:
            span.update_name(f"{operation} {exchange.model}" if exchange.model else operation)
        span.set_attributes({name: value for name, value in _attributes(exchange, operation) if value is not None})
        if exchange.status >= 500 or (exchange.status < 400 and exchange.outcome not in ("ok", CLIENT_LEFT)):
            span.set_status(Status(StatusCode.ERROR))
        span.end(_nanoseconds(exchange.last_byte_at or time.perf_counter()))

    def close(self) -> None:
        """Send what is left, for a few seconds at most. Blocks."""
        self._provider.shutdown()


def _attributes(exchange: Exchange, operation: str | None) -> tuple[tuple[str, str | int | float | bool | None], ...]:
    first = exchange.first_byte_at
    return (
        ("http.request.method", exchange.method),
        ("http.route", exchange.route),
        ("http.response.status_code", exchange.status),
        ("error.type", None if exchange.outcome == "ok" else exchange.outcome),
        ("gen_ai.operation.name", operation),
        ("gen_ai.provider.name", "vllm" if operation else None),
        ("gen_ai.request.model", exchange.model),
        ("gen_ai.request.stream", exchange.stream),
        ("gen_ai.usage.input_tokens", exchange.prompt_tokens),
        ("gen_ai.usage.output_tokens", exchange.completion_tokens),
        (
            "gen_ai.response.time_to_first_chunk",
            first - exchange.started_at if first is not None and exchange.stream else None,
        ),
        ("berth.request_id", exchange.request_id),
        ("berth.dialect", exchange.dialect),
        ("berth.key", exchange.key),
        ("berth.engine", exchange.engine),
        ("berth.retries", exchange.retries or None),
        ("berth.queue_seconds", _between(exchange.queued_at, exchange.admitted_at)),
    )


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start


def _nanoseconds(moment: float) -> int:
    """A time of perf_counter as nanoseconds since 1970."""
    return time.time_ns() - int((time.perf_counter() - moment) * 1e9)
