"""Replies and streams of the older dialects, through the running service."""

import json
from collections.abc import Callable

import pytest

from tests.support.stub_knobs import TEXT
from tests.unit.service.door import OPEA_BODY, OPENAI_BODY, Door
from tests.unit.service.streams import events, streamed_text

OpenDoor = Callable[..., Door]


def test_opea_reply_has_its_own_shape(door: Door) -> None:
    reply = door.chat({**OPEA_BODY, "streaming": False, "max_new_tokens": 17}).json()
    assert len(reply.pop("id")) == 32
    assert reply == {
        "text": "".join(TEXT),
        "prompt": "What is deep learning?",
        "streaming": False,
        "output_guardrail_params": None,
        "data": {"reranked_docs": []},
    }
    assert door.engine.chats[-1].json["max_tokens"] == 17


def test_opea_reply_repeats_data_and_guardrail_settings(door: Door) -> None:
    data, guard = {"reranked_docs": [{"text": "a"}]}, {"enabled": True}
    reply = door.chat({**OPEA_BODY, "streaming": False, "data": data, "output_guardrail_params": guard}).json()
    assert (reply["data"], reply["output_guardrail_params"]) == (data, guard)


def test_opea_reply_without_text_is_empty_and_no_error(door: Door) -> None:
    door.engine.knobs.whole_body = b'{"choices":[{"message":{"content":null}}]}'
    assert door.chat({**OPEA_BODY, "streaming": False}).json()["text"] == ""


def test_opea_streams_openai_chunks_by_default(door: Door) -> None:
    assert streamed_text(door.chat(OPEA_BODY).content) == "".join(TEXT)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(("shape", "literal"), [("repr", repr), ("bytes-repr", lambda text: repr(text.encode()))])
def test_opea_streams_in_the_historical_shapes(
    open_door: OpenDoor, shape: str, literal: Callable[[str], str], split: bool
) -> None:
    door = open_door(LLM_STREAM_FORMAT=shape)
    door.engine.knobs.split_bytes = split
    door.engine.knobs.pieces = ["It's", "", " né\n"]
    reply = door.chat({**OPEA_BODY, "data": {"reranked_docs": [1]}}).content
    assert events(reply) == [literal("It's"), literal(" né\n"), "[DONE]"]
    assert reply.endswith(b'data: [DONE]\n\njson: {"reranked_docs":[1]}\n\n')
    assert streamed_text(door.chat({**OPENAI_BODY, "stream": True}).content) == "It's né\n"
    assert streamed_text(door.chat({**OPENAI_BODY, "max_new_tokens": 5}).content) == "It's né\n"
    string = door.chat({"messages": "Hello", "stream": True}).content
    assert events(string) == [literal("It's"), literal(" né\n"), "[DONE]"]


def test_a_string_goes_to_completions_and_is_answered_in_their_shape(door: Door) -> None:
    reply = door.chat({"messages": "Hello"}).json()
    assert (reply["object"], reply["choices"][0]["text"]) == ("text_completion", "".join(TEXT))
    asked = door.engine.chats[-1]
    assert (asked.path, asked.json["prompt"]) == ("/v1/completions", "Hello")
    stream = events(door.chat({"messages": "Hello", "stream": True}).content)
    assert "".join(json.loads(event)["choices"][0]["text"] for event in stream[:-1]) == "".join(TEXT)


def test_a_list_of_enterprise_rag_gets_its_reply_with_choices(door: Door) -> None:
    data = {"reranked_docs": [{"text": "a"}]}
    body = {"messages": OPENAI_BODY["messages"], "max_new_tokens": 17, "data": data}
    reply = door.chat({**body, "stream": False}).json()
    assert (len(reply["id"]), reply["choices"][0]["message"]["content"]) == (32, "".join(TEXT))
    told = {name: reply[name] for name in ("text", "prompt", "stream", "output_guardrail_params", "data")}
    assert told == {
        "text": "".join(TEXT),
        "prompt": "What is deep learning?",
        "stream": False,
        "output_guardrail_params": None,
        "data": data,
    }
    assert reply["usage"]["completion_tokens"] == 5
    stream = door.chat(body).content
    assert streamed_text(stream) == "".join(TEXT)
    assert stream.endswith(b'data: [DONE]\n\njson: {"reranked_docs":[{"text":"a"}]}\n\n')
    assert not {"data", "max_new_tokens"} & set(door.engine.chats[-1].json)


def test_behind_an_output_guard_opea_gets_one_reply_that_says_it_wanted_a_stream(open_door: OpenDoor) -> None:
    door = open_door(LLM_OUTPUT_GUARD_EXISTS="True")
    reply = door.chat(OPEA_BODY).json()
    assert (reply["text"], reply["streaming"]) == ("".join(TEXT), True)
    assert door.engine.chats[-1].json["stream"] is False
    newer = door.chat({**OPENAI_BODY, "max_new_tokens": 17}).json()
    assert (newer["text"], newer["stream"]) == ("".join(TEXT), True)
    assert streamed_text(door.chat({**OPENAI_BODY, "stream": True}).content) == "".join(TEXT)


def test_streaming_can_be_switched_off(open_door: OpenDoor) -> None:
    door = open_door(LLM_DISABLE_STREAMING="True")
    assert door.chat({**OPEA_BODY, "streaming": True}).json()["streaming"] is True  # what was asked, as OPEA says it
    assert door.chat({**OPEA_BODY, "streaming": False}).json()["streaming"] is False
    assert door.chat({**OPENAI_BODY, "stream": True}).status_code == 400


def test_what_vllm_does_not_know_is_named_in_a_header(door: Door) -> None:
    reply = door.chat({**OPEA_BODY, "typical_p": 0.9})
    assert reply.headers["x-berth-warning"] == "typical_p is not applied: vLLM has no such setting"
    assert "x-berth-warning" not in door.chat(OPEA_BODY).headers
