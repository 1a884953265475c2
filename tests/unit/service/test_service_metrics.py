"""/metrics: what is counted, under which labels, and in a format that Prometheus reads."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from llm_service.engines.relay import Phase
from llm_service.port import front
from llm_service.records import metrics
from llm_service.records.exchange import Exchange
from llm_service.records.metrics import Metrics
from tests.support.waiting import wait_until
from tests.unit.service.door import OPENAI_BODY
from tests.unit.service.raw import Raw

CHAT = {"route": "/v1/chat/completions", "dialect": "openai", "model": "m", "key": "alice", "status": 200}


def made() -> Metrics:
    pool = SimpleNamespace(phases=lambda: Counter({Phase.READY: 2, Phase.FAILED: 1}))
    admission: Any = SimpleNamespace(in_flight=3, queued=1)
    return Metrics(admission, pool, Counter())  # type: ignore[arg-type]


def exchange(**known: Any) -> Exchange:
    one = Exchange("id", "POST", "/v1/chat/completions", started_at=100.0, last_byte_at=102.0)
    for name, value in (CHAT | known).items():
        setattr(one, name, value)
    return one


def samples(counted: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    return parsed(counted.render().decode())


def parsed(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Each sample's name, and its values by its labels' values."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_each_request_is_counted_by_route_dialect_model_key_and_status() -> None:
    counted = made()
    counted.finished(exchange())
    counted.finished(exchange())
    counted.finished(exchange(key="bob", status=400, outcome="BadRequestError"))
    assert samples(counted)["berth_requests_total"] == {
        ("/v1/chat/completions", "openai", "m", "alice", "200"): 2,
        ("/v1/chat/completions", "openai", "m", "bob", "400"): 1,
    }


def test_what_runs_and_waits_now_is_read_when_it_is_asked_for() -> None:
    seen = samples(made())
    assert (seen["berth_requests_in_flight"], seen["berth_requests_queued"]) == ({(): 3}, {(): 1})
    assert seen["berth_engines"] == {("ready",): 2, ("failed",): 1}
    assert seen["process_resident_memory_bytes"][()] > 2**20


def test_times_of_a_stream_are_from_its_head_and_between_its_tokens() -> None:
    counted = made()
    counted.finished(exchange(stream=True, first_byte_at=100.5, completion_tokens=4, chunks=2))
    counted.finished(exchange(stream=True, first_byte_at=100.5, chunks=16))
    seen = samples(counted)
    assert seen["berth_request_seconds_sum"][("openai", "m")] == 4.0
    assert seen["berth_time_to_first_token_seconds_sum"][("openai", "m")] == 1.0
    assert seen["berth_inter_token_seconds_sum"][("openai", "m")] == 0.5 + 0.1
    first = {bound: count for (_, _, bound), count in seen["berth_time_to_first_token_seconds_bucket"].items()}
    assert (first["0.25"], first["0.5"], first["+Inf"]) == (0, 2, 2), "a bound is part of its bucket"


def test_a_whole_reply_has_no_time_to_a_first_token() -> None:
    counted = made()
    counted.finished(exchange(stream=False, first_byte_at=102.0))
    seen = samples(counted)
    assert seen["berth_request_seconds_count"][("openai", "m")] == 1
    assert seen["berth_time_to_first_token_seconds_count"][("openai", "m")] == 0


def test_tokens_are_those_that_the_engine_counted() -> None:
    counted = made()
    counted.finished(exchange(prompt_tokens=7, completion_tokens=11))
    counted.finished(exchange(prompt_tokens=1, completion_tokens=2))
    assert samples(counted)["berth_tokens_total"] == {
        ("prompt", "openai", "m", "alice"): 8,
        ("completion", "openai", "m", "alice"): 13,
    }


def test_a_reply_that_was_cut_and_a_client_that_left_are_aborts_and_a_refusal_is_none() -> None:
    counted = made()
    counted.finished(exchange(outcome="EngineError", stream=True, first_byte_at=101.0, chunks=1))
    counted.finished(exchange(outcome="client gone", status=499))
    counted.finished(exchange(outcome="BadRequestError", status=400, first_byte_at=101.0))
    by_reason = {labels[0]: value for labels, value in samples(counted)["berth_aborts_total"].items()}
    assert by_reason == {"EngineError": 1, "client gone": 1}


def test_a_model_becomes_a_label_only_when_an_engine_has_answered_for_it() -> None:
    counted = made()
    for number in range(1000):
        counted.finished(exchange(model=f"invented-{number}", status=404, outcome="refused"))
    counted.finished(exchange(model="real"))
    counted.finished(exchange(model="real", status=500))
    assert {labels[2] for labels in samples(counted)["berth_requests_total"]} == {"other", "real"}


def test_an_engine_that_answers_to_any_name_adds_only_so_many_labels() -> None:
    counted = made()
    for number in range(1000):
        counted.finished(exchange(model=f"invented-{number}"))
    assert len({labels[2] for labels in samples(counted)["berth_requests_total"]}) == metrics.MOST_MODELS + 1


def test_a_label_with_quotes_and_line_breaks_stays_one_label() -> None:
    counted = made()
    counted.finished(exchange(model='a"b\\c\nd'))
    assert ("openai", 'a"b\\c\nd') in samples(counted)["berth_request_seconds_sum"]


def test_a_request_through_the_door_is_counted_with_its_tokens_and_times(open_door: Any) -> None:
    door = open_door()
    assert door.chat(OPENAI_BODY).status_code == 200
    assert door.chat({**OPENAI_BODY, "stream": True, "stream_options": {"include_usage": True}}).status_code == 200
    assert door.client.get("/no/such/path/of/mine").status_code == 404
    reply = door.client.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    seen = parsed(reply.text)
    assert seen["berth_requests_total"] == {
        ("/v1/chat/completions", "openai", "stub-model", "", "200"): 2,
        ("other", "", "", "", "404"): 1,
    }
    assert seen["berth_engines"] == {("ready",): 1}
    assert seen["berth_requests_in_flight"] == {(): 0}
    assert seen["berth_time_to_first_token_seconds_count"] == {("openai", "stub-model"): 1}
    assert seen["berth_tokens_total"]["prompt", "openai", "stub-model", ""] > 0


def test_an_engine_lost_in_mid_stream_and_a_client_that_left_are_counted(open_door: Any) -> None:
    door = open_door()
    door.engine.knobs.die = "in stream"
    assert b"error" in door.chat({**OPENAI_BODY, "stream": True}).content
    door.engine.knobs.die, door.engine.knobs.hold = None, "before headers"
    wait_until(lambda: door.client.get("/ready").status_code == 200, 10, "the engine is trusted again")
    door.begin(OPENAI_BODY, door.engine).close()

    def aborts() -> dict[tuple[str, ...], float]:
        return parsed(door.client.get("/metrics").text).get("berth_aborts_total", {})

    assert wait_until(lambda: len(aborts()) == 2 and aborts(), 10, "both are counted") == {
        ("EngineError", "openai", "stub-model", ""): 1,
        ("client gone", "openai", "stub-model", ""): 1,
    }


def test_what_the_port_refuses_is_counted_by_status_and_is_no_request(open_door: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(front, "SWEEP_SECONDS", 0.02)
    door = open_door(LLM_HEADER_TIMEOUT_SECONDS="0.2")
    head = b"GET /health HTTP/1.1\r\nHost: x\r\n"
    long, many = b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", head + b"X-A: b\r\n" * 200 + b"\r\n"
    for sent, status in ((b"garbage\r\n\r\n", 400), (head, 408), (long, 414), (many, 431), (many, 431)):
        with Raw(door, sent) as client:
            assert client.reply().status == status
    door.service.server.config.http_protocol_class.most_connections = 0
    with Raw(door) as client:
        assert client.reply().status == 503
    door.service.server.config.http_protocol_class.most_connections = 9
    seen = parsed(door.client.get("/metrics").text)
    by_status = {("400",): 1, ("408",): 1, ("414",): 1, ("431",): 2, ("503",): 1}
    assert seen["berth_port_refusals_total"] == by_status
    assert "berth_requests_total" not in seen


def test_a_body_that_is_refused_is_a_request_with_its_route(open_door: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(front, "SWEEP_SECONDS", 0.02)
    door = open_door(LLM_BODY_TIMEOUT_SECONDS="0.2", LLM_MAX_BODY_MIB="1")
    for length, status in ((b"1048577", 413), (b"9", 408)):
        with Raw(
            door, b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\n"
        ) as one:
            assert one.reply().status == status
    seen = parsed(door.client.get("/metrics").text)
    assert {(labels[0], labels[-1]) for labels in seen["berth_requests_total"]} == {
        ("/v1/chat/completions", "413"),
        ("/v1/chat/completions", "408"),
    }
    assert set(seen["berth_port_refusals_total"].values()) == {0}
