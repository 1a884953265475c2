"""Everything that goes wrong, and what each form of request is told about it."""

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPEA_BODY, OPENAI_BODY, Door, envelope

OpenDoor = Callable[..., Door]
STREAM = {**OPENAI_BODY, "stream": True}
WHOLE_OPEA = {**OPEA_BODY, "streaming": False}


def test_a_bad_body_gets_openais_envelope_and_is_not_repeated(door: Door) -> None:
    for body in (b"{secret", b"[]", b'{"messages":1,"x":"secret"}', b'{"messages":[],"stream":"secret"}'):
        reply = door.chat(body)
        assert reply.status_code == 400
        assert envelope(reply)["type"] == "BadRequestError"
        assert "secret" not in reply.text
    assert not door.engine.chats


def test_a_bad_opea_body_gets_a_detail_list_and_is_not_repeated(door: Door) -> None:
    reply = door.chat({**OPEA_BODY, "max_new_tokens": 0, "x": "secret"})
    assert reply.status_code == 422
    assert reply.json() == {
        "detail": [
            {
                "type": "value_error",
                "loc": ["body", "max_new_tokens"],
                "msg": "max_new_tokens must be a whole number above 0.",
            }
        ]
    }


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 500, 503])
def test_the_engines_own_errors_pass_through(door: Door, status: int) -> None:
    door.engine.knobs.status, door.engine.knobs.retry_after = status, "7"
    for body in (OPENAI_BODY, STREAM):
        reply = door.chat(body)
        assert (reply.status_code, reply.content) == (status, door.engine.knobs.error_body)
        assert reply.headers["retry-after"] == "7"
    for body in (OPEA_BODY, WHOLE_OPEA):
        reply = door.chat(body)
        assert (reply.status_code, reply.json()) == (status, {"detail": "max_tokens is too large"})


def test_a_key_that_the_engine_refuses_is_not_the_clients_fault(door: Door) -> None:
    door.chat(OPENAI_BODY)
    door.engine.knobs.api_key = "other"
    reply = door.chat(OPENAI_BODY)
    assert reply.status_code == 502
    assert "VLLM_API_KEY" in envelope(reply)["message"]


@pytest.mark.parametrize("body", [b"<html>", b"", b"[1]", b'{"error":{}}'])
def test_an_error_without_a_reason_becomes_one_sentence(door: Door, body: bytes) -> None:
    door.engine.knobs.status, door.engine.knobs.error_body = 500, body
    reply = door.chat(OPENAI_BODY)
    assert reply.status_code == 502
    assert "status 500" in envelope(reply)["message"]


def test_an_answer_that_is_no_completion_is_an_error_in_opeas_form(door: Door) -> None:
    door.engine.knobs.whole_body = b"[]"
    reply = door.chat(WHOLE_OPEA)
    assert (reply.status_code, reply.json()) == (502, {"detail": "The engine's answer is no chat completion."})


def test_no_engine_is_503_with_retry_after_and_the_phase(open_door: OpenDoor) -> None:
    door = open_door(StubEngine())
    for body in (OPENAI_BODY, STREAM):
        reply = door.chat(body)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
        assert envelope(reply)["phase"] == "starting"
    reply = door.chat(OPEA_BODY)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
    assert "starting" in reply.json()["detail"]


def test_an_engine_without_an_address_is_unreachable(open_door: OpenDoor) -> None:
    door = open_door(LLM_VLLM_ENDPOINT="http://no-such-engine.invalid:8008")
    assert envelope(door.chat(OPENAI_BODY))["phase"] == "unreachable"


def test_requests_fail_and_recover_with_the_engine(open_door: OpenDoor) -> None:
    engine = StubEngine()
    engine.listen()
    door = open_door(engine)
    assert door.chat(OPENAI_BODY).status_code == 200
    engine.kill()
    assert door.chat(OPENAI_BODY).status_code == 503
    with StubEngine(engine.port) as again:
        wait_until(lambda: door.chat(OPENAI_BODY).status_code == 200, 10, "the service recovers", interval=0.05)
        assert again.chats


def test_an_engine_that_comes_back_silent_is_known_to_load(
    open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_service.engines.health.PROBE_SECONDS", 0.2)
    engine = StubEngine()
    engine.listen()
    door = open_door(engine)
    door.chat(OPENAI_BODY)
    engine.kill()
    assert envelope(door.chat(OPENAI_BODY))["phase"] == "starting"
    with StubEngine(engine.port) as again:
        again.knobs.silent = True
        assert envelope(door.chat(OPENAI_BODY))["phase"] == "loading"
        assert not again.chats


def test_a_body_over_the_limit_is_413(open_door: OpenDoor) -> None:
    door = open_door(LLM_MAX_BODY_MIB="1")
    reply = door.chat({**OPENAI_BODY, "x": "a" * 1024**2})
    assert (reply.status_code, envelope(reply)["type"]) == (413, "BodyTooLargeError")


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/ready"])
def test_a_wrong_method_is_405_in_the_envelope(door: Door, path: str) -> None:
    assert envelope(door.client.delete(path))["code"] == 405


def test_a_fault_of_ours_is_500_in_the_envelope_with_an_id(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("llm_service.work.dialects.parse", broken)
    reply = door.chat(OPENAI_BODY)
    assert (reply.status_code, envelope(reply)["type"]) == (500, "InternalServerError")
    assert reply.headers["x-request-id"] in reply.text
    assert "secret" not in reply.text


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(["system", "user", "role"]), part),
    max_leaves=5,
)
_fields = st.sampled_from(["max_tokens", "max_new_tokens", "stream", "streaming", "model", "n", "data", "top_k"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=_json | st.just(OPEA_BODY["messages"]), more=st.dictionaries(_fields, _json, max_size=4))
def test_no_body_makes_the_service_fail(door: Door, messages: Any, more: dict[str, Any]) -> None:
    reply = door.chat(json.dumps({"messages": messages, **more}).encode())
    assert reply.status_code in {200, 400, 422}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=40))
def test_no_bytes_make_the_service_fail(door: Door, raw: bytes) -> None:
    assert door.chat(raw).status_code == 400


def test_half_a_request_does_not_stop_the_next(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.service.port), timeout=20) as client:
        client.sendall(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\n")
        assert door.chat(OPENAI_BODY).status_code == 200
