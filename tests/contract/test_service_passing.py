"""What vLLM serves under /v1 passes through the service byte for byte: the same request, direct and through it.

Both get the same X-Request-Id, from which vLLM makes most of its ids. Other ids and the times are left out.
"""

import json
import re
from typing import Any

import httpx
import pytest

from tests.contract.service_stack import CHAT, Stack, streamed_text

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

TURNS = [{"role": "user", "content": "Who are you?"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": SCHEMA}}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
LOOK = {"type": "function", "function": {"name": "look"}}
COMPLETIONS, RESPONSES, MESSAGES = "/v1/completions", "/v1/responses", "/v1/messages"
COUNT, EMBEDDINGS = "/v1/messages/count_tokens", "/v1/embeddings"

ASKED: dict[str, Any] = {"model": "demo", "temperature": 0}
CHATS: dict[str, Any] = {**ASKED, "messages": TURNS, "max_tokens": 4}
ANSWERED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, CHATS),
    (CHAT, {**CHATS, "logprobs": True, "top_logprobs": 3, "seed": 1, "stop": ["model"]}),
    (CHAT, {**CHATS, "temperature": 1, "n": 2, "seed": 7}),
    (CHAT, {**CHATS, "response_format": FORM}),
    (CHAT, {**CHATS, "structured_outputs": {"choice": ["yes", "no"]}}),
    (CHAT, {**CHATS, "tools": [TOOL], "tool_choice": LOOK}),
    (CHAT, {**CHATS, "tools": [TOOL], "tool_choice": "required"}),
    (CHAT, {**CHATS, "tools": [TOOL]}),
    (CHAT, {**CHATS, "min_p": 0.1, "top_k": 5, "return_token_ids": True, "not_known_to_anyone": {"a": [1]}}),
    (COMPLETIONS, {**ASKED, "prompt": "Who are", "max_tokens": 4, "logprobs": 2, "echo": True}),
    (COMPLETIONS, {**ASKED, "prompt": ["a", "b"], "max_tokens": 3}),
    (RESPONSES, {**ASKED, "input": "Who are you?", "max_output_tokens": 4, "store": False}),
    (MESSAGES, CHATS),
    (MESSAGES, {**CHATS, "system": "Be brief.", "stop_sequences": ["model"]}),
    (COUNT, {"model": "demo", "messages": TURNS}),
]
REFUSED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {**CHATS, "temperature": -1}),
    (CHAT, {**CHATS, "model": "other"}),
    (CHAT, {**CHATS, "messages": []}),
    (CHAT, {**CHATS, "max_tokens": 10_000_000}),
    (COMPLETIONS, ASKED),
    (RESPONSES, {**ASKED, "input": {"not": "a list"}}),
    (MESSAGES, {**CHATS, "max_tokens": -1}),
]


def compared(body: bytes) -> bytes:
    """What has to be the same."""
    body = re.sub(rb'"((?:item_|response_)?id)":\s*"[^"]*"', rb'"\1":"-"', body)
    return re.sub(rb'"(created|created_at|completed_at)":\s*[\d.]+', rb'"\1":0', body)


def both(stack: Stack, path: str, body: dict[str, Any]) -> tuple[httpx.Response, httpx.Response]:
    """The replies to one request, direct and through the service."""
    raw = json.dumps(body, indent=1).encode()
    headers = {"X-Request-Id": "the-same", "Content-Type": "application/json"}
    direct, through = (
        stack.client.post(f"{url}{path}", content=raw, headers=headers) for url in (stack.engine, stack.url)
    )
    assert through.headers["content-type"] == direct.headers["content-type"]
    assert through.status_code == direct.status_code
    whole = [compared(reply.content) for reply in (through, direct)]
    # Which of several choices comes first in a stream depends on the moment.
    several = body.get("stream") and (isinstance(body.get("prompt"), list) or body.get("n"))
    got, expected = [sorted(reply.split(b"\n\n")) for reply in whole] if several else whole
    assert got == expected
    return direct, through


def named(case: tuple[str, dict[str, Any]]) -> str:
    return " ".join((case[0], *case[1]))


@pytest.mark.parametrize("case", ANSWERED, ids=named)
def test_answers_pass(stack: Stack, case: tuple[str, dict[str, Any]]) -> None:
    _, through = both(stack, *case)
    assert through.status_code == 200, through.text


@pytest.mark.parametrize("case", [case for case in ANSWERED if case[0] != COUNT], ids=named)
def test_streams_pass(stack: Stack, case: tuple[str, dict[str, Any]]) -> None:
    path, body = case
    # One token: with more, it depends on the moment how vLLM puts them into events.
    limit = "max_output_tokens" if path == RESPONSES else "max_tokens"
    more = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}} if "completions" in path else {}
    _, through = both(stack, path, {**body, limit: 1, "stream": True, **more})
    assert through.status_code == 200, through.text
    assert through.headers["content-type"].startswith("text/event-stream")
    if more:
        assert b'"completion_tokens":1' in through.content


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", REFUSED, ids=named)
def test_refusals_pass(stack: Stack, case: tuple[str, dict[str, Any]], stream: bool) -> None:
    path, body = case
    _, through = both(stack, path, {**body, "stream": stream})
    assert 400 <= through.status_code < 500, through.text


def test_a_stream_of_many_tokens_has_the_text_of_the_whole_answer(stack: Stack) -> None:
    whole = stack.chat({**CHATS, "max_tokens": 16}).json()["choices"][0]["message"]["content"]
    assert streamed_text(stack.chat({**CHATS, "max_tokens": 16, "stream": True}).text) == whole


def test_a_tool_is_called_through_the_service(stack: Stack) -> None:
    reply = stack.chat({**CHATS, "tools": [TOOL], "tool_choice": LOOK}).json()
    [call] = reply["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "look"


@pytest.mark.parametrize("path", [EMBEDDINGS, "/v1/score", "/v1/rerank"])
def test_what_the_engines_model_cannot_do_is_said(stack: Stack, path: str) -> None:
    reply = stack.client.post(f"{stack.url}{path}", json={"model": "demo", "input": "a"})
    assert stack.client.post(f"{stack.engine}{path}", json={"model": "demo", "input": "a"}).status_code == 404
    assert reply.status_code == 404
    assert reply.json()["error"]["message"] == f"The engine's model serves no POST {path}."
