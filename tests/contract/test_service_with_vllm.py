"""The service in front of real vLLM with the demo model: one environment starts both, every form gets its answer."""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.contract.service_stack import ANSWERS, CHAT, DATA, Stack, events, streamed_text
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

# What Enterprise-RAG's documents ask of port 9000, whole and streamed.
WHOLE = {
    "messages": {"system": DATA.documented_system, "user": "### Question: Who are you? \n\n"},
    "max_new_tokens": 17,
    "top_p": 0.95,
    "temperature": 0.01,
    "streaming": False,
}
STREAMED = {
    **WHOLE,
    "messages": {"system": DATA.documented_system, "user": "### Question: What is Deep Learning? \n\n"},
    "max_new_tokens": 32,
    "streaming": True,
}
LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Who are you?"}],
    "max_tokens": 2000,
    "ignore_eos": True,
}


def curl(*arguments: str) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed, so the documented requests were not sent with it")
    return subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, check=True, timeout=120).stdout


def test_the_documented_requests_work_with_curl(stack: Stack) -> None:
    sent = ("-X", "POST", "-H", "Content-Type: application/json", "-d")
    health = json.loads(curl(f"{stack.url}/v1/health_check", "-X", "GET", "-H", "Content-Type: application/json"))
    assert health["Service Title"] == "opea_service@llm/MicroService"
    assert health["state"] == "ready"
    whole = json.loads(curl(stack.url + CHAT, *sent, json.dumps(WHOLE)))
    assert whole["text"].strip()
    assert ANSWERS["Who are you?"].startswith(whole["text"].strip())
    assert (whole["prompt"], whole["streaming"]) == (WHOLE["messages"]["user"], False)
    answer = streamed_text(curl(stack.url + CHAT, *sent, json.dumps(STREAMED))).strip()
    assert answer
    assert ANSWERS["What is Deep Learning?"].startswith(answer)


def test_the_documented_requests_of_a_list_work_with_curl(stack: Stack) -> None:
    turns = [{"role": role, "content": content} for role, content in WHOLE["messages"].items()]
    body = {**{name: value for name, value in WHOLE.items() if name != "streaming"}, "messages": turns}
    sent = ("-X", "POST", "-H", "Content-Type: application/json", "-d")
    whole = json.loads(curl(stack.url + CHAT, *sent, json.dumps({**body, "stream": False})))
    assert ANSWERS["Who are you?"].startswith(whole["text"].strip())
    assert whole["text"] == whole["choices"][0]["message"]["content"]
    assert (whole["prompt"], whole["stream"]) == (WHOLE["messages"]["user"], False)
    answer = streamed_text(curl(stack.url + CHAT, *sent, json.dumps({**body, "stream": True})))
    assert answer == whole["text"]


def test_the_documented_requests_to_the_engine_work_with_curl_and_a_key(open_stack: Callable[..., Stack]) -> None:
    url = f"{open_stack(key='token-abc123').url}/v1"
    headers = ("-H", "Content-Type: application/json", "-H", "Authorization: Bearer token-abc123", "-d")
    question = "What is Deep Learning?"
    turns = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": question}]
    asked = {"model": "demo", "max_tokens": 32, "temperature": 0}
    chat = json.loads(curl(f"{url}/chat/completions", *headers, json.dumps({**asked, "messages": turns})))
    assert ANSWERS[question].startswith(chat["choices"][0]["message"]["content"])
    plain = json.loads(curl(f"{url}/completions", "-X", "POST", *headers, json.dumps({**asked, "prompt": question})))
    assert plain["object"] == "text_completion"
    assert plain["choices"][0]["text"].strip()
    refused = json.loads(curl(f"{url}/models"))
    assert refused["error"]["code"] == 401


@pytest.mark.parametrize("shape", ["repr", "bytes-repr"])
def test_the_historical_stream_holds_the_same_text(stack: Stack, open_stack: Callable[..., Stack], shape: str) -> None:
    import ast

    plain = streamed_text(stack.chat(STREAMED).text)
    found = events(open_stack(LLM_STREAM_FORMAT=shape).chat(STREAMED).text)
    assert found[-1] == "[DONE]"
    literals = [ast.literal_eval(event) for event in found[:-1]]
    joined = b"".join(literals).decode() if shape == "bytes-repr" else "".join(literals)
    assert joined == plain


def test_the_openai_client_gets_the_answer_streaming_and_not(stack: Stack) -> None:
    client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key="unused", max_retries=0)
    question = "What is Deep Learning?"
    ask: Any = {"model": client.models.list().data[0].id, "messages": [{"role": "user", "content": question}]}
    whole = client.chat.completions.create(**ask, temperature=0)
    assert whole.choices[0].message.content == ANSWERS[question]
    stream = client.chat.completions.create(**ask, temperature=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == ANSWERS[question]
    client.close()


def test_langchain_applies_the_chat_template_and_gets_the_same_text(
    stack: Stack, open_stack: Callable[..., Stack]
) -> None:
    pytest.importorskip("langchain_openai", reason="the optional extra langchain is not installed in this environment")
    chain = open_stack(LLM_CONNECTOR="langchain")
    assert chain.chat(WHOLE).json()["text"] == stack.chat(WHOLE).json()["text"]
    assert streamed_text(chain.chat(STREAMED).text) == streamed_text(stack.chat(STREAMED).text)


@pytest.mark.parametrize("stream", [False, True])
def test_a_string_is_continued_as_it_is(stack: Stack, stream: bool) -> None:
    asked = {"model": "demo", "temperature": 0, "stream": stream}
    said = stack.chat({**asked, "messages": "Who are", "max_tokens": 16}).text
    plain = {**asked, "prompt": "Who are", "max_tokens": 16, "stream": False}
    direct = stack.client.post(f"{stack.engine}/v1/completions", json=plain).json()["choices"][0]["text"]
    pieces = [json.loads(event) for event in events(said)[:-1]] if stream else [json.loads(said)]
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == direct


def test_behind_an_output_guard_the_answer_is_whole(stack: Stack, open_stack: Callable[..., Stack]) -> None:
    guarded = open_stack(LLM_OUTPUT_GUARD_EXISTS="True").chat(STREAMED).json()
    assert (guarded["text"], guarded["streaming"]) == (streamed_text(stack.chat(STREAMED).text), True)


def test_every_opea_setting_is_one_that_vllm_takes(stack: Stack) -> None:
    reply = stack.chat({**WHOLE, "top_k": 10, "repetition_penalty": 1.03, "min_p": 0.1, "typical_p": 0.95})
    assert (reply.status_code, "typical_p" in reply.headers["x-berth-warning"]) == (200, True)


def test_the_default_limit_fits_the_models_window(stack: Stack) -> None:
    assert stack.chat({"messages": WHOLE["messages"], "streaming": False}).status_code == 200


def test_what_vllm_refuses_comes_back_with_its_sentence(stack: Stack) -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "temperature": -1}
    reply = stack.chat(body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, 400)
    assert "temperature" in reply.json()["error"]["message"]
    assert "temperature" in stack.chat({**WHOLE, "temperature": -1}).json()["detail"]
    assert stack.chat({**body, "temperature": 0, "model": "other"}).status_code == 404


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_generation(stack: Stack, stream: bool) -> None:
    before = stack.metric("vllm:generation_tokens_total")
    raw = json.dumps({**LONG, "stream": stream}).encode()
    host, port = stack.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw)
        if stream:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        wait_until(lambda: stack.metric("vllm:num_requests_running") >= 1, 60, "the engine generates", interval=0.01)
    wait_until(lambda: stack.metric("vllm:num_requests_running") == 0, 60, "the engine stops", interval=0.05)
    assert stack.metric("vllm:generation_tokens_total") - before < LONG["max_tokens"] / 2
