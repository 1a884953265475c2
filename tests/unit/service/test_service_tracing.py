"""Traces: the span of a request, between the client's and the engine's, and where spans go."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from llm_service.config.loading import SettingsError, load
from llm_service.records.exchange import CLIENT_LEFT, Exchange
from llm_service.records.tracing import Tracing
from tests.unit.service.collector import Collector
from tests.unit.service.door import OPENAI_BODY, Door
from tests.unit.service.test_service_process import MICROSERVICE, environ

TRACE, CLIENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CLIENT_SPAN}-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def traced(traceparent: str | None = None, **known: Any) -> tuple[Exchange, Any]:
    """A request that began and ended, and its span."""
    kept = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(kept))
    one = Exchange("id", "POST", "/v1/chat/completions", "/v1/chat/completions", traceparent=traceparent)
    tracing.begin(one)
    one.status, one.model, one.stream, one.dialect = 200, "m", True, "openai"
    one.first_byte_at, one.last_byte_at = one.started_at + 0.25, one.started_at + 2.0
    for name, value in known.items():
        setattr(one, name, value)
    tracing.finished(one)
    tracing.close()
    (span,) = kept.get_finished_spans()
    return one, span


def test_a_span_speaks_of_a_request_in_the_words_of_the_gen_ai_conventions() -> None:
    _, span = traced(prompt_tokens=7, completion_tokens=11, key="alice")
    assert (span.name, span.kind) == ("chat m", SpanKind.SERVER)
    said = dict(span.attributes)
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.request.model"] == "m"
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (7, 11)
    assert said["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.25)
    assert (said["http.response.status_code"], said["berth.request_id"], said["berth.key"]) == (200, "id", "alice")
    assert span.end_time - span.start_time == pytest.approx(2e9, abs=5e6)
    assert span.status.status_code is StatusCode.UNSET


def test_a_span_stands_between_the_clients_and_the_engines() -> None:
    one, span = traced(TRACEPARENT)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == CLIENT_SPAN
    assert one.traceparent == f"00-{TRACE}-{span.context.span_id:016x}-01"


@pytest.mark.parametrize(
    ("known", "status"),
    [
        ({"status": 503, "outcome": "EngineNotReadyError"}, StatusCode.ERROR),
        ({"outcome": "EngineError"}, StatusCode.ERROR),
        ({"outcome": CLIENT_LEFT}, StatusCode.UNSET),
        ({"status": 400, "outcome": "BadRequestError"}, StatusCode.UNSET),
    ],
)
def test_an_error_is_what_the_service_or_the_engine_did_wrong(known: dict[str, Any], status: StatusCode) -> None:
    _, span = traced(**known)
    assert span.status.status_code is status
    assert span.attributes["error.type"] == known["outcome"]


def test_spans_reach_a_collector_and_the_engine_is_told_of_them(
    open_door: Callable[..., Door], collector: Collector
) -> None:
    door = open_door(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert door.chat(OPENAI_BODY, headers={"traceparent": TRACEPARENT}).status_code == 200
    assert door.client.get("/v1/models").status_code == 200
    door.service.stop()
    (span,) = collector.spans
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == CLIENT_SPAN
    assert door.engine.chats[-1].headers["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"


def test_without_traces_the_engine_gets_the_clients_own(open_door: Callable[..., Door]) -> None:
    door = open_door()
    assert door.chat(OPENAI_BODY, headers={"traceparent": TRACEPARENT}).status_code == 200
    assert door.engine.chats[-1].headers["traceparent"] == TRACEPARENT


def test_a_collector_that_is_away_costs_no_request_and_no_stop(open_door: Callable[..., Door]) -> None:
    door = open_door(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert door.chat(OPENAI_BODY).status_code == 200
    door.service.stop()


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:2/x"},
            "http://t:2/x",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1", "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:1", "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
    ],
)
def test_opentelemetrys_own_names_say_where_spans_go(given: dict[str, str], endpoint: str | None) -> None:
    assert load(given).traces_endpoint == endpoint


def test_without_the_extra_it_ends_with_3_and_the_remedy() -> None:
    hide = (
        "import runpy, sys; sys.modules['opentelemetry.exporter'] = None\n"
        "runpy.run_module('llm_service', run_name='__main__')"
    )
    given = environ(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318")
    done = subprocess.run(
        [sys.executable, "-c", hide], cwd=MICROSERVICE, env=given, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert done.stderr.startswith(
        "berth: error: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:4318/v1/traces needs"
    )
    assert "requirements-otel.txt" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("wrong", [{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317"}])
def test_what_cannot_be_sent_there_is_one_sentence(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as error:
        load({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", **wrong})
    assert len(error.value.problems) == 1
