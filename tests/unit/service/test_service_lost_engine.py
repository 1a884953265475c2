"""An engine that breaks off, or falls silent: what each form of request is told, and who is not cut."""

import json
import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPEA_BODY, OPENAI_BODY, Door, envelope

OpenDoor = Callable[..., Door]
STREAM = {**OPENAI_BODY, "stream": True}
WHOLE_OPEA = {**OPEA_BODY, "streaming": False}


def last_event(body: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(body.decode().strip().rsplit("\n\n", 1)[-1].removeprefix("data: "))
    return parsed


@pytest.mark.parametrize("body", [OPENAI_BODY, STREAM, OPEA_BODY, WHOLE_OPEA])
def test_an_engine_that_breaks_off_before_it_answers_is_502(door: Door, body: dict[str, Any]) -> None:
    door.engine.knobs.die = "before headers"
    assert door.chat(body).status_code == 502


@pytest.mark.parametrize("body", [OPENAI_BODY, STREAM])
def test_an_engine_that_speaks_no_http_is_502(door: Door, body: dict[str, Any]) -> None:
    door.chat(body)
    door.engine.knobs.garbage = True
    assert envelope(door.chat(body))["type"] == "EngineError"


@pytest.mark.parametrize("death", ["in stream", "in event", "reset in stream", "clean end in stream"])
@pytest.mark.parametrize("body", [STREAM, OPEA_BODY])
def test_an_engine_lost_in_a_stream_gives_one_error_event_and_no_done(
    door: Door, body: dict[str, Any], death: str
) -> None:
    door.engine.knobs.die = death
    # A reset takes unread bytes with it, so the engine dies only once the client has seen some.
    seen = door.engine.knobs.die_after = threading.Event()
    with door.client.stream("POST", CHAT, json=body) as reply:
        assert reply.status_code == 200
        parts = reply.iter_text()
        text = next(parts)
        seen.set()
        text += "".join(parts)
    assert last_event(text.encode())["error"]["type"] == "EngineError"
    assert text.count('"error"') == 1
    assert "[DONE]" not in text
    for event in text.strip().split("\n\n"):
        json.loads(event.removeprefix("data: "))


@pytest.mark.parametrize("body", [STREAM, OPEA_BODY])
def test_two_doors_in_a_row_give_one_error_event_for_a_lost_engine(open_door: OpenDoor, body: dict[str, Any]) -> None:
    inner = open_door()
    outer = open_door(LLM_VLLM_ENDPOINT=inner.service.url)
    inner.engine.knobs.die = "in stream"
    seen = inner.engine.knobs.die_after = threading.Event()
    with outer.client.stream("POST", CHAT, json=body) as reply:
        parts = reply.iter_text()
        text = next(parts)
        seen.set()
        text += "".join(parts)
    assert last_event(text.encode())["error"]["type"] == "EngineError"
    assert (text.count('"error"'), "[DONE]" in text) == (1, False)


def test_the_openai_client_raises_when_the_engine_is_lost_in_a_stream(door: Door) -> None:
    door.engine.knobs.die = "in event"
    client = openai.OpenAI(base_url=f"{door.service.url}/v1", api_key="unused", max_retries=0)
    messages: Any = OPENAI_BODY["messages"]
    stream = client.chat.completions.create(model="stub-model", messages=messages, stream=True)
    with pytest.raises(openai.APIError, match="before"):
        list(stream)
    client.close()


@pytest.mark.parametrize("body", [OPENAI_BODY, STREAM])
@pytest.mark.parametrize("hold", ["before headers", "after headers"])
def test_an_engine_that_never_begins_is_504(open_door: OpenDoor, body: dict[str, Any], hold: str) -> None:
    door = open_door(LLM_FIRST_BYTE_TIMEOUT_SECONDS="0.05")
    door.engine.knobs.hold = hold if body is STREAM else "before headers"
    assert envelope(door.chat(body))["type"] == "EngineTimeoutError"
    wait_until(lambda: any(one.client_left for one in door.engine.chats), 10, "the engine is told", interval=0.005)


def test_an_engine_silent_within_a_stream_gives_an_error_event(open_door: OpenDoor) -> None:
    door = open_door(LLM_IDLE_TIMEOUT_SECONDS="0.05")
    door.engine.knobs.hold = "after first piece"
    reply = door.chat(STREAM)
    assert last_event(reply.content)["error"]["code"] == 504
    assert "[DONE]" not in reply.text


def test_a_stream_longer_than_each_limit_is_not_cut(open_door: OpenDoor) -> None:
    door = open_door(LLM_FIRST_BYTE_TIMEOUT_SECONDS="2", LLM_IDLE_TIMEOUT_SECONDS="2")
    door.engine.knobs.pieces, door.engine.knobs.piece_seconds = ["a"] * 25, 0.1
    assert door.chat(STREAM).content.endswith(b"data: [DONE]\n\n")


def test_a_client_that_reads_slowly_is_no_silent_engine(open_door: OpenDoor) -> None:
    door = open_door(LLM_IDLE_TIMEOUT_SECONDS="1")
    door.engine.knobs.pieces = ["a" * 100_000] * 600  # more than the sockets between them hold
    seen = [-1] * 10

    def stalled() -> bool:
        seen.append(door.engine.chats[-1].pieces_sent)
        return len(set(seen[-10:])) == 1

    with door.client.stream("POST", CHAT, json=STREAM) as reply:
        # Ten times the same count takes longer than the limit on the engine's silence.
        wait_until(stalled, 30, "the engine has to wait for the client", interval=0.15)
        assert seen[-1] < 600
        text = reply.read()
    assert text[-14:] == b"data: [DONE]\n\n"
