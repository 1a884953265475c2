"""Requests through the running service to a stub engine: replies, streams, and what a client that leaves causes."""

import json
import socket
from collections.abc import Callable
from typing import Any

import openai
import pytest

from llm_service.engines.address import goes_direct
from llm_service.engines.upstream import watchful_socket
from tests.support.stub_knobs import TEXT
from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPEA_BODY, OPENAI_BODY, Door
from tests.unit.service.streams import streamed_text

OpenDoor = Callable[..., Door]
STRING = {"messages": "Hello", "stream": True}


def test_openai_reply_is_the_engines_own_bytes(door: Door) -> None:
    door.engine.knobs.whole_body = b'{"choices": [ ],  "new_in_vllm": 1.0}'
    reply = door.chat(OPENAI_BODY)
    assert (reply.status_code, reply.content) == (200, door.engine.knobs.whole_body)


def test_openai_request_reaches_the_engine_byte_for_byte(door: Door) -> None:
    raw = json.dumps({**OPENAI_BODY, "unknown": {"a": 1}}, indent=3).encode()
    assert door.chat(raw).status_code == 200
    assert door.engine.chats[-1].body == raw


@pytest.mark.parametrize("split", [False, True])
def test_openai_stream_is_relayed_byte_for_byte(door: Door, split: bool) -> None:
    door.engine.knobs.split_bytes = split
    reply = door.chat({**OPENAI_BODY, "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-cache"
    assert streamed_text(reply.content) == "".join(TEXT)
    assert reply.content.endswith(b"data: [DONE]\n\n")


def test_the_openai_client_works_streaming_and_not(door: Door) -> None:
    client = openai.OpenAI(base_url=f"{door.service.url}/v1", api_key="unused", max_retries=0)
    messages: Any = OPENAI_BODY["messages"]
    whole = client.chat.completions.create(model="stub-model", messages=messages)
    assert whole.choices[0].message.content == "".join(TEXT)
    stream = client.chat.completions.create(model="stub-model", messages=messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "".join(TEXT)
    assert [model.id for model in client.models.list()] == ["stub-model"]
    client.close()


def test_the_model_is_the_engines_first_unless_set(open_door: OpenDoor) -> None:
    door = open_door()
    door.engine.knobs.models = ["first", "second"]
    door.chat({"messages": "Hello"})
    assert door.engine.chats[-1].json["model"] == "first"
    named = open_door(LLM_MODEL_NAME="second")
    named.chat({"messages": "Hello"})
    named.chat({"messages": "Hello", "model": "third"})
    assert [chat.json["model"] for chat in named.engine.chats] == ["second", "third"]


@pytest.mark.parametrize(("engines", "default"), [("second", "second"), ("path/of/first", "first")])
def test_of_several_models_the_engines_own_setting_is_the_default(
    open_door: OpenDoor, engines: str, default: str
) -> None:
    door = open_door(LLM_VLLM_MODEL_NAME=engines)
    door.engine.knobs.models = ["first", "second"]
    door.chat({"messages": "Hello"})
    assert door.engine.chats[-1].json["model"] == default


def test_a_model_that_went_is_looked_up_again(open_door: OpenDoor) -> None:
    door = open_door()
    door.chat({"messages": "Hello", "stream": False})
    door.engine.knobs.models = ["newer"]
    door.engine.knobs.status, door.engine.knobs.error_body = 404, b'{"error":{"message":"no such model"}}'
    assert door.chat({"messages": "Hello", "stream": False}).status_code == 404
    door.engine.knobs.status = 200
    door.chat({"messages": "Hello", "stream": False})
    assert [chat.json["model"] for chat in door.engine.chats] == ["stub-model", "stub-model", "newer"]


def test_the_clients_own_headers_stay_here(open_door: OpenDoor) -> None:
    door = open_door(VLLM_API_KEY="engine-key")
    door.engine.knobs.api_key = "engine-key"
    sent = {"Authorization": "Bearer client-key", "Cookie": "a=b", "X-Request-Id": "abc-1"}
    reply = door.chat(OPENAI_BODY, headers=sent)
    assert (reply.status_code, reply.headers["x-request-id"]) == (200, "abc-1")
    seen = door.engine.chats[-1].headers
    assert (seen["authorization"], seen["x-request-id"]) == ("Bearer engine-key", "abc-1")
    assert seen["accept-encoding"] == "identity"
    assert "cookie" not in seen


def test_cookies_of_the_engine_are_not_kept(open_door: OpenDoor) -> None:
    door = open_door()
    named = open_door(LLM_VLLM_ENDPOINT=f"http://localhost:{door.engine.port}")
    door.engine.knobs.cookie = "a=b"
    named.chat({"messages": "Hello"})
    assert "cookie" not in door.engine.chats[-1].headers


def test_a_request_id_that_could_break_a_log_is_replaced(door: Door) -> None:
    assert len(door.chat(OPENAI_BODY, headers={"X-Request-Id": 'a"b c'}).headers["x-request-id"]) == 32


@pytest.mark.parametrize("body", [{**OPENAI_BODY, "stream": True}, OPENAI_BODY, OPEA_BODY, STRING])
@pytest.mark.parametrize("phase", ["before headers", "after headers", "after first piece"])
def test_a_client_that_leaves_ends_the_generation(door: Door, body: dict[str, Any], phase: str) -> None:
    streams = body.get("stream", body is OPEA_BODY)
    if not streams and phase != "before headers":
        phase = "before headers"
    door.engine.knobs.hold = phase
    client = door.begin(body)
    if phase == "after first piece":
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    client.close()
    wait_until(lambda: door.engine.chats[-1].client_left, 10, "the engine sees the connection close", interval=0.005)


def test_a_client_that_leaves_while_sending_causes_no_request(door: Door) -> None:
    client = socket.create_connection(("127.0.0.1", door.service.port), timeout=20)
    client.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
    client.close()
    assert door.chat(OPENAI_BODY).status_code == 200
    assert len(door.engine.chats) == 1


def test_connections_to_the_engine_are_kept_for_the_next_request(open_door: OpenDoor) -> None:
    door = open_door()
    for _ in range(3):
        door.chat({**OPENAI_BODY, "stream": True})
        door.chat(OPENAI_BODY)
    assert door.engine.connections <= 3  # two questions about its state have one of their own each


@pytest.mark.parametrize(
    ("endpoint", "direct"),
    [
        ("http://127.0.0.1:8008", True),
        ("http://[::1]:8008", True),
        ("http://localhost:8008", True),
        ("http://engine:8008", True),
        ("http://10.1.2.3:8008", True),
        ("http://vllm.models.svc:8008", True),
        ("https://llm.example.com", False),
        ("http://8.8.8.8:8008", False),
    ],
)
def test_only_engines_out_in_the_world_go_through_a_proxy(endpoint: str, direct: bool) -> None:
    assert goes_direct(endpoint) is direct


def test_a_machine_that_is_gone_is_noticed() -> None:
    # What the kernel does with these is seen by hand only: a machine that vanishes needs a network of one's own.
    info = socket.getaddrinfo("127.0.0.1", 1, type=socket.SOCK_STREAM)[0]
    with watchful_socket(info) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_a_body_of_several_megabytes_passes(door: Door) -> None:
    raw = json.dumps({**OPENAI_BODY, "x": "a" * 3_000_000}).encode()
    assert door.chat(raw).status_code == 200
    assert door.engine.chats[-1].body == raw
