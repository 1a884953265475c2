"""Limits on time, comments in a long silence, and clients that leave: what is watched while a request runs."""

import gc
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from llm_service.watch import NOTICE_SECONDS, Watch
from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPEA_BODY, OPENAI_BODY, Door

OpenDoor = Callable[..., Door]
STREAM = {**OPENAI_BODY, "stream": True}
COMMENT = b": keep-alive\n\n"


class Prefill(list[str]):
    """Pieces of a reply, the first of which comes only when a test lets it."""

    def __init__(self) -> None:
        super().__init__(["a"])
        self.over = threading.Event()

    def __iter__(self) -> Iterator[str]:
        self.over.wait(20)
        yield "a"


def error_in(text: bytes) -> dict[str, Any]:
    """The error in the last event of a stream."""
    said: dict[str, Any] = json.loads(text.strip().rpartition(b"\n\n")[2].removeprefix(b"data: "))["error"]
    return said


@pytest.mark.parametrize("body", [STREAM, OPEA_BODY])
@pytest.mark.parametrize("hold", ["before headers", "after headers"])
def test_a_stream_gets_comments_while_the_engine_thinks(open_door: OpenDoor, body: dict[str, Any], hold: str) -> None:
    door = open_door(LLM_SSE_KEEP_ALIVE_SECONDS="0.05")
    door.engine.knobs.hold = hold
    with door.client.stream("POST", CHAT, json=body) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        parts = reply.iter_raw()
        text = b""
        while text.count(COMMENT) < 3:
            text += next(parts)
    assert text.replace(COMMENT, b"") == b""
    wait_until(lambda: door.engine.chats[-1].client_left, 10, "the engine is told", interval=0.005)


def test_after_comments_the_answer_follows_and_a_client_sees_nothing_of_them(open_door: OpenDoor) -> None:
    door = open_door(LLM_SSE_KEEP_ALIVE_SECONDS="0.05")
    with ThreadPoolExecutor(1) as thread:
        door.engine.knobs.pieces = prefill = Prefill()
        client = openai.OpenAI(base_url=f"{door.service.url}/v1", api_key="unused", max_retries=0)
        # OpenAI's client returns once it has the headers, which come with the first comment.
        asked = thread.submit(client.chat.completions.create, model="stub-model", messages=[], stream=True)
        stream = asked.result(20)
        prefill.over.set()
        assert [chunk.choices[0].delta.content for chunk in stream] == ["a"]
        client.close()


def test_what_fails_after_a_comment_is_told_in_an_event(open_door: OpenDoor) -> None:
    door = open_door(LLM_SSE_KEEP_ALIVE_SECONDS="0.05", LLM_FIRST_BYTE_TIMEOUT_SECONDS="0.4")
    door.engine.knobs.hold = "before headers"
    reply = door.chat(STREAM)
    assert (reply.status_code, COMMENT in reply.content, b"[DONE]" in reply.content) == (200, True, False)
    assert (error_in(reply.content)["code"], error_in(reply.content)["type"]) == (504, "EngineTimeoutError")


def test_a_request_may_still_go_to_another_engine_after_comments(open_door: OpenDoor, begin: Any) -> None:
    a, b = begin(), begin()
    door = open_door(LLM_VLLM_ENDPOINT=f"{a.url},{b.url}", LLM_SSE_KEEP_ALIVE_SECONDS="0.05")
    wait_until(lambda: door.client.get("/ready").json()["detail"].startswith("2 of 2"), 10, "both are ready")
    a.knobs.hold = b.knobs.hold = "before headers"
    with door.client.stream("POST", CHAT, json=STREAM) as reply:
        parts = reply.iter_raw()
        text = next(parts)
        asked, other = (a, b) if a.chats else (b, a)
        other.knobs.hold = None
        asked.kill()
        text += b"".join(parts)
    assert text.startswith(COMMENT)
    assert text.endswith(b"data: [DONE]\n\n")
    assert len(other.chats) == 1


@pytest.mark.parametrize("body", [OPENAI_BODY, STREAM])
def test_without_comments_nothing_is_sent_before_the_engine_answers(open_door: OpenDoor, body: dict[str, Any]) -> None:
    seconds = "0" if body is STREAM else "0.01"  # a whole reply can have none
    door = open_door(LLM_SSE_KEEP_ALIVE_SECONDS=seconds, LLM_FIRST_BYTE_TIMEOUT_SECONDS="0.3")
    door.engine.knobs.hold = "before headers"
    assert door.chat(body).status_code == 504


def test_comments_come_between_events_and_never_inside_one(open_door: OpenDoor) -> None:
    door = open_door(LLM_SSE_KEEP_ALIVE_SECONDS="0.02")
    door.engine.knobs.split_bytes, door.engine.knobs.piece_seconds = True, 0.1
    text = door.chat(STREAM).content
    assert COMMENT in text
    for event in text.replace(COMMENT, b"").strip().split(b"\n\n")[:-1]:
        json.loads(event.removeprefix(b"data: "))


def test_a_request_has_a_limit_in_all_when_one_is_set(open_door: OpenDoor) -> None:
    door = open_door(LLM_TOTAL_TIMEOUT_SECONDS="0.3")
    door.engine.knobs.pieces, door.engine.knobs.piece_seconds = ["a"] * 500, 0.02
    reply = door.chat(STREAM)
    assert error_in(reply.content)["message"] == "The request took longer than 0.3 s."
    door.engine.knobs.hold = "before headers"
    whole = door.chat(OPENAI_BODY)
    assert (whole.status_code, whole.json()["error"]["type"]) == (504, "EngineTimeoutError")
    wait_until(lambda: all(chat.client_left for chat in door.engine.chats), 10, "the engine is told", interval=0.005)


def test_a_client_that_leaves_the_queue_is_not_asked_for(open_door: OpenDoor) -> None:
    door = open_door(LLM_MAX_IN_FLIGHT="1", LLM_MAX_QUEUED="1")
    door.engine.knobs.hold = "before headers"
    first = door.begin(OPENAI_BODY)
    raw = json.dumps(OPENAI_BODY).encode()

    def queued() -> socket.socket:
        client = socket.create_connection(("127.0.0.1", door.service.port), timeout=20)
        client.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw)
        return client

    def waiting(number: int) -> bool:
        return f"\nberth_requests_queued {number}\n" in door.client.get("/metrics").text

    second = queued()
    wait_until(lambda: waiting(1), 10, "it waits in the queue", interval=0.005)
    assert door.chat(OPENAI_BODY).status_code == 503
    second.close()
    wait_until(lambda: waiting(0), 10, "its place in the queue is free again", interval=0.005)
    door.engine.knobs.hold = None
    first.close()
    assert door.chat(OPENAI_BODY).status_code == 200
    assert len(door.engine.chats) == 2


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/messages", "/v1/audio/transcriptions"])
def test_a_client_that_leaves_ends_the_work_on_every_path(open_door: OpenDoor, path: str) -> None:
    class Holding(StubEngine):
        async def _answer(self, record: Any, writer: Any) -> bool:
            record.path = CHAT if record.method == "POST" else record.path
            return await super()._answer(record, writer)

    engine = Holding()
    engine.listen()
    door = open_door(engine)
    engine.knobs.hold = "before headers"
    raw = b'{"model": "stub-model"}'
    with socket.create_connection(("127.0.0.1", door.service.port), timeout=20) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw)
        wait_until(lambda: engine.chats, 20, "the engine gets the request", interval=0.005)
    wait_until(lambda: engine.chats[-1].client_left, 10, "the engine sees the connection close", interval=0.005)


@pytest.mark.parametrize("leaves", [False, True])
def test_a_stream_leaves_nothing_to_the_garbage_collector(door: Door, leaves: bool) -> None:
    door.engine.knobs.piece_seconds = 2 * NOTICE_SECONDS
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        with door.client.stream("POST", CHAT, json=STREAM) as reply:
            lines = reply.iter_lines()
            next(lines)
            if not leaves:
                assert list(lines)[-2] == "data: [DONE]"
        wait_until(lambda: not door.service.server.server_state.tasks, 10, "the request's end")
        gc.collect()
        assert not [one for one in gc.garbage if isinstance(one, Watch)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
