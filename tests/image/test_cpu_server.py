"""The CPU image serving its demo model for real, as an unknown user with a read-only root."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.image.container import STRANGER, Started

CHECK = ("/opt/venv/bin/python", "-P", "-m", "engine.healthcheck")
SERVE = {"LLM_VLLM_MODEL_NAME": "demo", "LLM_VLLM_HOST": "0.0.0.0"}
QUESTION = {"model": "demo", "messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0}

pytestmark = [pytest.mark.image, pytest.mark.docker, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def server(start: Any) -> Started:
    """One CPU's worth of time on a machine that has more."""
    container: Started = start(environment=SERVE, shm_size="1g", mem_limit="6g", nano_cpus=1_000_000_000, **STRANGER)
    container.wait_until_ready()
    return container


def pieces(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The choices of a stream, one after the other."""
    for line in lines:
        if line.startswith("data: {"):
            yield from json.loads(line[6:])["choices"]


def test_it_answers_in_text(server: Started) -> None:
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json={**QUESTION, "max_tokens": 64})
    assert answer.is_success, answer.text
    words: str = answer.json()["choices"][0]["message"]["content"]
    assert re.search(r"[a-z]+ [a-z]+ [a-z]+", words), words


def test_structured_output_works_without_triton(server: Started) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json={**QUESTION, "max_tokens": 200, "response_format": wanted})
    assert answer.is_success, answer.text
    assert answer.json()["choices"][0]["message"]["content"].lstrip().startswith("{")


def test_the_health_check_agrees(server: Started) -> None:
    assert server.run(*CHECK) == (0, "")
    code, _ = server.run("env", "VLLM_SERVED_MODEL_NAME=another", *CHECK)
    assert code == 1, "an engine that serves another model is not this one"


def test_a_quota_of_one_cpu_means_one_thread(server: Started) -> None:
    line = next(line for line in server.log().splitlines() if "VLLM_CPU_OMP_THREADS_BIND" in line)
    assert re.search(r"VLLM_CPU_OMP_THREADS_BIND=\d+ \(a quota of 1 CPUs", line), line


def test_the_log_holds_no_errors(server: Started) -> None:
    assert [line for line in server.log().splitlines() if re.search(r"\bERROR\b|Traceback", line)] == []


def test_a_stream_is_finished_after_sigterm(server: Started) -> None:
    """The last one: it ends the server."""
    long = {**QUESTION, "stream": True, "max_tokens": 600, "ignore_eos": True}
    with server.client() as client, client.stream("POST", "/v1/chat/completions", json=long) as answer:
        received = pieces(answer.iter_lines())
        next(received)
        server.container.kill("SIGTERM")
        finish = [piece["finish_reason"] for piece in received if piece["finish_reason"]]
    assert finish == ["length"]
    assert server.exit_code() == 0
