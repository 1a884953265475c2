"""The line of a request: one id from end to end, and what is known of the request when it has ended."""

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPENAI_BODY
from tests.unit.service.test_service_process import Process

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ALICE = {"Authorization": "Bearer key-of-alice"}


@pytest.fixture(scope="module")
def engine() -> Iterator[StubEngine]:
    with StubEngine() as engine:
        yield engine


@pytest.fixture(scope="module")
def service(engine: StubEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    place = tmp_path_factory.mktemp("service")
    digest = hashlib.sha256(b"key-of-alice").hexdigest()
    (place / "keys").write_text(f"alice sha256:{digest}\n")
    running = Process(place / "log", LLM_VLLM_ENDPOINT=engine.url, LLM_API_KEYS_FILE=str(place / "keys"))
    yield running
    running.process.kill()
    running.process.wait(10)


def line_of(service: Process, **headers: str) -> tuple[httpx.Response, dict[str, Any]]:
    """Send a request; return its reply and its line."""
    before = len(service.lines("request"))
    reply = httpx.post(service.url + CHAT, json=OPENAI_BODY, headers=headers, trust_env=False)
    lines = wait_until(lambda: service.lines("request")[before:], 10, "the line is logged", interval=0.02)
    return reply, lines[0]


def test_an_id_is_the_same_in_the_request_the_engine_the_reply_and_the_log(
    service: Process, engine: StubEngine
) -> None:
    reply, line = line_of(service, **ALICE, **{"X-Request-Id": "my.id-1"})
    assert {reply.headers["x-request-id"], line["request_id"], engine.chats[-1].headers["x-request-id"]} == {"my.id-1"}


@pytest.mark.parametrize("bad", ["a b", "a\tb", 'a"b', "a" * 129])
def test_an_id_that_could_not_be_logged_as_it_is_is_replaced(service: Process, engine: StubEngine, bad: str) -> None:
    reply, line = line_of(service, **ALICE, **{"X-Request-Id": bad})
    assert reply.headers["x-request-id"] == line["request_id"] == engine.chats[-1].headers["x-request-id"]
    assert len(line["request_id"]) == 32


def test_a_line_names_the_key_the_tokens_and_the_trace(service: Process) -> None:
    _, line = line_of(service, **ALICE, traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    assert (line["key"], line["trace_id"], line["status"], line["outcome"]) == ("alice", TRACE, 200, "ok")
    assert (line["prompt_tokens"], line["completion_tokens"]) == (3, 5)
    assert {"queued_ms", "first_byte_ms", "total_ms", "bytes"} <= set(line)


def test_a_request_without_a_key_has_a_line_without_a_name(service: Process) -> None:
    reply, line = line_of(service)
    assert (reply.status_code, line["outcome"], line["request_id"]) == (
        401,
        "AuthenticationError",
        reply.headers["x-request-id"],
    )
    assert "key" not in line
