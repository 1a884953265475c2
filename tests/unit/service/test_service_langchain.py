"""LLM_CONNECTOR=langchain: the same requests, the same shapes, carried by ChatOpenAI."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.stub_engine import StubEngine
from tests.support.stub_knobs import TEXT
from tests.support.waiting import wait_until
from tests.unit.service.door import OPEA_BODY, OPENAI_BODY, Door

pytest.importorskip("langchain_openai", reason="the optional extra langchain is not installed in this environment")

OpenDoor = Callable[..., Door]
STREAM = {**OPENAI_BODY, "stream": True}


@pytest.fixture
def chain(open_door: OpenDoor) -> Door:
    return open_door(LLM_CONNECTOR="langchain", VLLM_API_KEY="engine-key")


def streamed_text(text: str) -> str:
    events = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    return "".join(json.loads(event)["choices"][0]["delta"]["content"] for event in events[:-1])


def test_whole_replies_have_the_same_shapes(chain: Door) -> None:
    reply = chain.chat({**OPENAI_BODY, "top_k": 3, "max_tokens": 9}).json()
    assert reply["object"] == "chat.completion"
    assert reply["choices"][0]["message"]["content"] == "".join(TEXT)
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"]["completion_tokens"] == 5
    seen = chain.engine.chats[-1]
    assert seen.headers["authorization"] == "Bearer engine-key"
    assert {name: seen.json[name] for name in ("model", "top_k", "max_tokens", "messages")} == {
        "model": "stub-model",
        "top_k": 3,
        "max_tokens": 9,
        "messages": OPENAI_BODY["messages"],
    }
    assert chain.chat({**OPEA_BODY, "streaming": False}).json()["text"] == "".join(TEXT)


def test_the_chat_route_is_used_so_that_the_chat_template_applies(chain: Door) -> None:
    chain.chat(OPEA_BODY)
    assert [turn["role"] for turn in chain.engine.chats[-1].json["messages"]] == ["system", "user"]


def test_streams_have_the_same_shape(chain: Door) -> None:
    for body in (STREAM, OPEA_BODY, {**OPENAI_BODY, "max_new_tokens": 5}):
        reply = chain.chat(body)
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert streamed_text(reply.text) == "".join(TEXT)


def test_the_historical_shapes_hold_too(open_door: OpenDoor) -> None:
    door = open_door(LLM_CONNECTOR="langchain", LLM_STREAM_FORMAT="repr")
    assert door.chat(OPEA_BODY).text == "".join(f"data: {text!r}\n\n" for text in TEXT) + "data: [DONE]\n\n"


@pytest.mark.parametrize("body", [OPENAI_BODY, STREAM])
@pytest.mark.parametrize("status", [400, 404, 429, 503])
def test_the_engines_errors_pass_through_without_a_retry(chain: Door, body: dict[str, Any], status: int) -> None:
    chain.engine.knobs.status, chain.engine.knobs.retry_after = status, "1"
    reply = chain.chat(body)
    assert (reply.status_code, reply.content) == (status, chain.engine.knobs.error_body)
    assert len(chain.engine.chats) == 1


def test_no_engine_is_503(open_door: OpenDoor) -> None:
    reply = open_door(StubEngine(), LLM_CONNECTOR="langchain").chat(OPENAI_BODY)
    assert (reply.status_code, reply.json()["error"]["phase"]) == (503, "starting")


@pytest.mark.parametrize("body", [OPENAI_BODY, STREAM])
def test_an_engine_that_went_is_503_and_one_that_breaks_off_502(chain: Door, body: dict[str, Any]) -> None:
    assert chain.chat(body).status_code == 200
    chain.engine.knobs.die = "before headers"
    assert chain.chat(body).status_code == 502
    chain.chat(body)
    chain.engine.kill()
    assert chain.chat(body).status_code == 503


def test_an_engine_lost_in_a_stream_gives_an_error_event_and_no_done(chain: Door) -> None:
    chain.engine.knobs.die = "in stream"
    text = chain.chat(STREAM).text
    assert text.count('"error"') == 1
    assert "[DONE]" not in text


@pytest.mark.parametrize(("body", "hold"), [(OPENAI_BODY, "before headers"), (STREAM, "after first piece")])
def test_a_client_that_leaves_ends_the_generation(chain: Door, body: dict[str, Any], hold: str) -> None:
    chain.engine.knobs.hold = hold
    client = chain.begin(body)
    if hold == "after first piece":
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    client.close()
    wait_until(lambda: chain.engine.chats[-1].client_left, 10, "the engine sees the connection close", interval=0.02)


@pytest.mark.parametrize("more", [{"n": 2}, {"tools": [{}]}, {"logprobs": True}])
def test_what_it_cannot_carry_is_refused(chain: Door, more: dict[str, Any]) -> None:
    reply = chain.chat({**OPENAI_BODY, **more})
    assert reply.status_code == 400
    assert "langchain" in reply.json()["error"]["message"]


@pytest.mark.parametrize("messages", [[1], [{"role": "nobody", "content": "a"}], [{}], [None]])
def test_messages_that_langchain_cannot_read_are_refused(chain: Door, messages: Any) -> None:
    reply = chain.chat({"model": "stub-model", "messages": messages})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize("answer", [b"[]", b"{}", b"<html>", b'{"choices":[]}'])
def test_an_answer_that_is_no_completion_is_502(chain: Door, answer: bytes) -> None:
    chain.engine.knobs.whole_body = answer
    assert chain.chat(OPENAI_BODY).status_code == 502
