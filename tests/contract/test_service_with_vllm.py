"""The service in front of real vLLM with the demo model: one environment starts both, every form gets its answer."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from models.demo.train import text
from tests.support.engine_python import ROOT, engine_python
from tests.support.waiting import free_port, wait_until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

DATA = text.load()
ANSWERS = {question: entry.answer for entry in DATA.known for question in entry.ask}
CHAT = "/v1/chat/completions"
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


@dataclass
class Stack:
    """The running service, and the engine's own address."""

    url: str
    engine: str
    client: httpx.Client

    def chat(self, body: dict[str, Any]) -> httpx.Response:
        return self.client.post(f"{self.url}{CHAT}", json=body)

    def metric(self, name: str) -> float:
        """The sum of one of vLLM's metrics over its labels."""
        lines = self.client.get(f"{self.engine}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{re.escape(name)}[{{ ]", line))


def start(module: str, python: Path, directory: Path, log: Path, **settings: str) -> subprocess.Popen[bytes]:
    environ = {
        **os.environ,
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(directory),
        "HF_HUB_OFFLINE": "1",
        **settings,
    }
    with log.open("wb") as output:
        return subprocess.Popen([python, "-P", "-m", module], env=environ, stdout=output, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def open_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """Starts the engine once, and a service in front of it for each set of settings."""
    directory = tmp_path_factory.mktemp("logs")
    port = free_port()
    shared = {"LLM_VLLM_MODEL_NAME": "demo", "LLM_VLLM_PORT": str(port)}
    client = httpx.Client(timeout=120, trust_env=False)
    cpu = {"LLM_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENFORCE_EAGER": "true"}
    engine = start("engine.serve", engine_python(), ROOT, directory / "engine.log", **shared, **cpu)
    running = [engine]

    def make(**settings: str) -> Stack:
        own = free_port()
        log = directory / f"service-{own}.log"
        given = {**shared, "LLM_USVC_PORT": str(own), **settings}
        service = start("llm_service", Path(sys.executable), ROOT / "microservice", log, **given)
        running.append(service)
        stack = Stack(f"http://127.0.0.1:{own}", f"http://127.0.0.1:{port}", client)

        def ready() -> bool:
            for process, output in ((engine, directory / "engine.log"), (service, log)):
                assert process.poll() is None, output.read_text()[-4000:]
            try:
                return client.get(f"{stack.url}/ready").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(ready, 600, "the service is ready", interval=0.5)
        return stack

    try:
        yield make
    finally:
        client.close()
        for process in reversed(running):
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def stack(open_stack: Callable[..., Stack]) -> Stack:
    return open_stack()


def events(body: str) -> list[str]:
    return [line[6:] for line in body.splitlines() if line.startswith("data: ")]


def streamed_text(body: str) -> str:
    found = events(body)
    assert found[-1] == "[DONE]"
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in found[:-1])


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


def test_a_string_gets_the_answer(stack: Stack) -> None:
    body = {"messages": "Who are you?", "streaming": False, "temperature": 0}
    assert stack.chat(body).json()["choices"][0]["message"]["content"] == ANSWERS["Who are you?"]


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
