"""What each form of request becomes for the engine. No network here."""

import contextlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.errors import BadRequest
from llm_service.forms import dialects
from llm_service.forms.dialects import Form
from llm_service.forms.replies import opea_reply
from llm_service.port.limits import MAX_DEPTH
from tests.unit.service.understanding import LIST, USER, refused, sent, understood


def test_opea_object_becomes_messages_with_the_defaults_that_reached_the_engine() -> None:
    assert sent({"messages": USER}) == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "stream": True,
        "max_tokens": 1024,
        "temperature": 0.01,
        "top_p": 0.95,
        "model": "m",
    }


@pytest.mark.parametrize("system", ["", "  \n", None])
def test_an_empty_system_message_is_not_sent(system: str | None) -> None:
    assert sent({"messages": {"system": system, "user": "Hello"}})["messages"] == LIST


def test_everything_that_vllm_takes_is_forwarded_from_the_opea_form() -> None:
    settings = {"top_k": 5, "top_p": 0.5, "temperature": 0.7, "repetition_penalty": 1.1, "min_p": 0.1, "seed": 7}
    forwarded = sent({"messages": USER, "max_new_tokens": 9, "streaming": False, "new_in_vllm": [1], **settings})
    assert {name: forwarded[name] for name in settings} == settings
    assert (forwarded["max_tokens"], forwarded["stream"], forwarded["new_in_vllm"]) == (9, False, [1])
    assert not {"max_new_tokens", "streaming"} & set(forwarded)


def test_settings_that_vllm_does_not_know_are_named_and_not_sent() -> None:
    body = {"messages": USER, "typical_p": 0.9, "input_guardrail_params": {"a": 1}}
    assert not {"typical_p", "input_guardrail_params"} & set(sent(body))
    assert [text.split()[0] for text in understood(body).warnings] == ["typical_p", "input_guardrail_params"]


@pytest.mark.parametrize(("window", "limit"), [(None, 1024), (4096, 1024), (1024, None), (512, None)])
def test_the_default_limit_never_exceeds_the_models_window(window: int | None, limit: int | None) -> None:
    assert sent({"messages": USER}, window=window).get("max_tokens") == limit


@pytest.mark.parametrize("name", ["max_new_tokens", "max_tokens", "max_completion_tokens"])
def test_a_limit_that_the_client_gave_replaces_the_default(name: str) -> None:
    forwarded = sent({"messages": USER, name: 3}, window=2)
    assert [forwarded.get(n) for n in ("max_tokens", "max_completion_tokens")] == (
        [None, 3] if name == "max_completion_tokens" else [3, None]
    )


def test_other_paths_pass_as_the_clients_own_bytes() -> None:
    raw = b'{ "model":"a", "input": "x", "stream": true, "big":18446744073709551616}'
    call = dialects.passed(dialects.read(raw), raw)
    assert (call.engine_body("m", None), call.stream) == (raw, True)
    with pytest.raises(BadRequest, match="switched off"):
        dialects.passed(dialects.read(raw), raw, disable_streaming=True)


@pytest.mark.parametrize("raw", [b'{"stream": false}', b' \n{ "big":18446744073709551616, "x" : 1.0 }'])
def test_a_missing_model_is_put_before_the_clients_own_bytes(raw: bytes) -> None:
    filled = dialects.passed(dialects.read(raw), raw).engine_body("m", None)
    assert filled == b'{"model":"m",' + raw.strip()[1:]
    assert orjson.loads(filled) == {"model": "m", **orjson.loads(raw)}


def test_an_empty_object_gets_the_model() -> None:
    assert orjson.loads(dialects.passed({}, b"{}").engine_body("m", None)) == {"model": "m"}


def test_openai_list_passes_as_the_clients_own_bytes() -> None:
    raw = b'{ "model":"a",\n "messages":[{"role":"user","content":"\\u00e9"}],"x":1.0, "big":18446744073709551616}'
    fields = dialects.read(raw)
    assert dialects.parse(Form.OPENAI, fields, raw).engine_body("m", None) is raw


def test_openai_list_does_not_stream_unless_asked() -> None:
    assert understood({"messages": LIST}).stream is False
    assert understood({"messages": LIST, "stream": True}).stream is True


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": ""}])
def test_a_missing_model_is_filled_in(model: dict[str, Any]) -> None:
    assert sent({"messages": LIST, **model}) == {"messages": LIST, "model": "m"}


@pytest.mark.parametrize("messages", [USER, "Hello", LIST])
def test_aliases_hold_in_every_form(messages: Any) -> None:
    forwarded = sent({"messages": messages, "max_new_tokens": 5, "streaming": True})
    assert (forwarded["max_tokens"], forwarded["stream"]) == (5, True)
    assert not {"max_new_tokens", "streaming"} & set(forwarded)


@pytest.mark.parametrize("messages", [USER, "Hello", LIST])
@pytest.mark.parametrize("both", [{"max_tokens": 5, "max_new_tokens": 6}, {"stream": True, "streaming": False}])
def test_names_that_disagree_are_refused(messages: Any, both: dict[str, Any]) -> None:
    assert "disagree" in refused({"messages": messages, **both})


def test_names_that_agree_are_taken() -> None:
    assert sent({"messages": LIST, "max_tokens": 5, "max_new_tokens": 5})["max_tokens"] == 5


@pytest.mark.parametrize("value", [0, -1, 1.5, "7", True, [], {}])
def test_a_limit_that_is_no_count_is_refused(value: Any) -> None:
    assert "max_new_tokens" in refused({"messages": USER, "max_new_tokens": value})


@pytest.mark.parametrize("name", ["stream", "streaming"])
def test_stream_must_be_true_or_false(name: str) -> None:
    assert "true or false" in refused({"messages": LIST, name: "yes"})


@pytest.mark.parametrize(
    "messages",
    [{}, {"system": "a"}, {"user": 1}, {"user": "a", "system": 2}, {"user": "a", "assistant": "b"}, {"user": None}],
)
def test_an_object_that_is_not_system_and_user_is_refused(messages: Any) -> None:
    assert refused({"messages": messages}).startswith("messages")


@pytest.mark.parametrize("more", [{"n": 2}, {"tools": []}])
def test_what_the_opea_reply_cannot_hold_is_refused(more: dict[str, Any]) -> None:
    assert "OPEA's reply holds one text" in refused({"messages": USER, **more})


def test_streaming_switched_off_answers_opea_whole_and_refuses_openai_streams() -> None:
    assert understood({"messages": USER}, disable_streaming=True).stream is False
    assert understood({"messages": LIST}, disable_streaming=True).stream is False
    assert understood({"messages": "Hello", "stream": True}, disable_streaming=True).stream is False
    with pytest.raises(BadRequest, match="switched off"):
        understood({"messages": LIST, "stream": True}, disable_streaming=True)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff", b"[]", b"1", b'"a"', b"null", b'{"messages":[NaN]}', b"[" * 10_000]
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        dialects.read(raw)


@pytest.mark.parametrize("body", [{}, {"messages": None}, {"messages": 1}, {"messages": True}])
def test_messages_of_no_known_form_are_refused(body: dict[str, Any]) -> None:
    assert "messages must be" in refused(body)


def test_what_is_just_not_too_deep_can_be_written_again() -> None:
    depth = MAX_DEPTH - 2
    for name in ("x", "data", "output_guardrail_params"):
        raw = f'{{"messages":{{"user":"a"}},"{name}":{{"a":{"[" * depth + "]" * depth}}}}}'.encode()
        fields = dialects.read(raw)
        call = dialects.parse(Form.OPEA, fields, raw)
        assert call.engine_body("m", None)
        assert opea_reply(call, b'{"choices":[{}]}')
        assert call.trailer or name != "data"


_names = st.sampled_from(
    [
        *("messages", "max_tokens", "max_new_tokens", "stream", "streaming", "stream_options", "model", "n", "tools"),
        *("data", "typical_p", "prompt", "documents", "output_guardrail_params"),
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_names | st.sampled_from(["system", "user", "x"]), inner)
    ),
    max_leaves=8,
)
_messages = st.just(USER) | st.just(LIST) | st.text(max_size=5) | _json


@given(st.dictionaries(_names | st.text(max_size=5), _json, max_size=6), _messages)
def test_any_json_object_is_understood_or_refused(body: dict[str, Any], messages: Any) -> None:
    raw = json.dumps({"messages": messages, **body}).encode()
    with contextlib.suppress(BadRequest):
        fields = dialects.read(raw)
        call = dialects.parse(dialects.form_of(fields), fields, raw)
        forwarded = orjson.loads(call.engine_body("m", 4096))
        assert bool(forwarded.get("stream")) is call.stream
        assert isinstance(forwarded["prompt"], str) if call.form is Form.TEXT else forwarded["messages"] is not None
        assert forwarded["model"] not in (None, "")


@given(st.binary(max_size=60))
def test_any_bytes_are_understood_or_refused(raw: bytes) -> None:
    with contextlib.suppress(BadRequest):
        assert isinstance(dialects.read(raw), dict)
