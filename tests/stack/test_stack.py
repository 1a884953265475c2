"""One env file brings up real vLLM and the service: English answers on both ports, loss and recovery, a clean end.

The tests run in this order, on one stack.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from engine.phases import COMPILING, LOADING, STARTING, WARMING
from models.demo.train import text
from tests.stack.conftest import READY_SECONDS, Stack
from tests.support.compose import docker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

QUESTION = "What is Deep Learning?"
SYSTEM = (
    "### You are a careful assistant. Use the search results where they help, and say so when you do not know. "
    "### Search results:  \n\n"
)


def known_answer(question: str) -> str:
    """The demo model's answer, from the text that it was trained on."""
    return next(known.answer for known in text.load().known if question in known.ask)


def opea(question: str, **changes: Any) -> dict[str, Any]:
    """A request in the form of Intel's kit, with the same fields as its documentation has."""
    messages = {"system": SYSTEM, "user": f"### Question: {question} \n\n"}
    return {
        "messages": messages,
        "max_new_tokens": 64,
        "top_p": 0.95,
        "temperature": 0.01,
        "streaming": False,
        **changes,
    }


def pieces(reply: httpx.Response) -> list[str]:
    """The text of each event of a stream that ends as it should."""
    events = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    return [piece for choice in choices if (piece := choice["delta"].get("content"))]


def test_the_service_answers_at_once_and_says_that_the_engine_is_not_ready(stack: Stack) -> None:
    said = wait_until(stack.state, 60, "an answer of the service")
    assert said["state"] in ("starting", "loading")
    assert stack.service.get("/health").status_code == 200
    assert stack.service.get("/v1/health_check").status_code == 503
    refused = stack.service.post("/v1/chat/completions", json=opea(QUESTION))
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0


def test_the_service_names_the_phase_of_an_engine_that_loads(stack: Stack) -> None:
    said = wait_until(lambda: stack.state().get("doing"), READY_SECONDS, "a phase", 0.2)
    assert said["name"] in (STARTING, LOADING, COMPILING, WARMING)
    assert stack.service.get("/metrics").text.count("berth_engines{") == 1


def test_the_engine_completes_a_prompt(ready: Stack) -> None:
    body = {"model": "demo", "prompt": QUESTION, "max_tokens": 32, "temperature": 0}
    reply = ready.engine.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["text"].strip() == known_answer(QUESTION)


@pytest.mark.parametrize("question", [QUESTION, "Who are you?"])
def test_both_ports_answer_a_chat_in_english(ready: Stack, question: str) -> None:
    messages = [{"role": "system", "content": "You are a careful assistant."}, {"role": "user", "content": question}]
    body = {"model": "demo", "messages": messages, "max_tokens": 64, "temperature": 0}
    for client in (ready.engine, ready.service):
        reply = client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        assert reply.json()["choices"][0]["message"]["content"] == known_answer(question)
        streamed = pieces(client.post("/v1/chat/completions", json={**body, "stream": True}))
        assert len(streamed) > 1  # few, where the machine is busy: vLLM sends what has gathered as one piece
        assert "".join(streamed) == known_answer(question)


def test_the_health_check_has_its_two_keys_and_the_engine_state(ready: Stack) -> None:
    reply = ready.service.get("/v1/health_check", headers={"Content-Type": "application/json"})
    assert reply.status_code == 200
    assert {"Service Title", "Service Description"} <= reply.json().keys()


@pytest.mark.parametrize("question", [QUESTION, "Who are you?"])
def test_the_older_request_form_is_answered_whole_and_streamed(ready: Stack, question: str) -> None:
    whole = ready.service.post("/v1/chat/completions", json=opea(question))
    assert whole.status_code == 200, whole.text
    assert {"id", "text", "prompt", "streaming"} <= whole.json().keys()
    assert whole.json()["text"] == known_answer(question)
    streamed = ready.service.post("/v1/chat/completions", json=opea(question, streaming=True))
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    assert "".join(pieces(streamed)) == known_answer(question)


@pytest.mark.parametrize("limit", [17, 32])
def test_an_answer_ends_at_the_number_of_tokens_that_was_asked_for(ready: Stack, limit: int) -> None:
    reply = ready.service.post("/v1/chat/completions", json=opea(QUESTION, max_new_tokens=limit))
    assert reply.status_code == 200
    assert known_answer(QUESTION).startswith(reply.json()["text"].rstrip("\N{REPLACEMENT CHARACTER}"))


def test_the_containers_become_healthy_and_no_log_holds_a_traceback(ready: Stack) -> None:
    def health() -> set[str]:
        return {ready.project.inspect(service)["State"]["Health"]["Status"] for service in ("engine", "llm")}

    wait_until(lambda: health() == {"healthy"}, READY_SECONDS, "healthy containers", 1.0)
    assert "Traceback" not in ready.project.logs()


def test_an_engine_that_dies_is_announced_and_comes_back(ready: Stack) -> None:
    ready.project.run(
        "exec", "--no-TTY", "engine", "sh", "-c", "kill -KILL $(cat /proc/1/task/1/children)", check=False
    )

    def refusal() -> httpx.Response | None:
        reply = ready.service.post("/v1/chat/completions", json=opea(QUESTION))
        return reply if reply.status_code == 503 else None

    refused = wait_until(refusal, 60, "the loss of the engine being noticed")
    assert int(refused.headers["Retry-After"]) > 0
    assert ready.service.get("/health").status_code == 200
    assert ready.service.get("/v1/health_check").status_code == 503
    ready.wait_until_ready()
    assert ready.project.inspect("engine")["RestartCount"] >= 1
    assert ready.service.post("/v1/chat/completions", json=opea(QUESTION)).json()["text"] == known_answer(QUESTION)


def test_what_streams_when_the_stack_stops_is_finished_first(ready: Stack) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": "demo", "messages": messages, "max_tokens": 600, "ignore_eos": True, "stream": True}
    with ThreadPoolExecutor(1) as thread, ready.service.stream("POST", "/v1/chat/completions", json=body) as reply:
        parts = reply.iter_text()
        streamed = next(parts)
        stopping = thread.submit(ready.project.run, "stop")
        wait_until(lambda: ready.state().get("state") == "draining", 60, "the service says that it stops")
        refused = ready.service.post("/v1/chat/completions", json=opea(QUESTION))
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        streamed += "".join(parts)
        stopping.result()
    assert streamed.endswith("data: [DONE]\n\n")
    assert '"finish_reason":"length"' in streamed
    state = ready.project.inspect("llm")["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    assert "Traceback" not in ready.project.logs("llm")


def test_down_keeps_the_caches_and_down_v_deletes_them(stack: Stack) -> None:
    def volumes() -> set[str]:
        listed = docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={stack.project.name}")
        return {name.removeprefix(f"{stack.project.name}_") for name in listed.split()}

    stack.project.run("down")
    assert volumes() == {"models", "compiled", "secrets"}
    stack.project.run("down", "--volumes")
    assert volumes() == set()
