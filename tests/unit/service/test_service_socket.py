"""An engine behind a Unix socket: requests, streams, and what is said while the socket is not there."""

import errno
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import aiohttp
import pytest

from llm_service.engines.relay_tls import translated
from tests.support.waiting import wait_until
from tests.unit.service.door import OPENAI_BODY, Door, SocketEngine

OpenDoor = Callable[..., Door]
STREAM = {**OPENAI_BODY, "stream": True}


@pytest.fixture
def engine(tmp_path: Path) -> SocketEngine:
    return SocketEngine(tmp_path / "engine.sock")


def test_requests_and_streams_go_through_the_socket_with_the_engines_key(
    open_door: OpenDoor, engine: SocketEngine
) -> None:
    engine.knobs.api_key = "engine-key"
    engine.listen()
    door = open_door(engine, VLLM_API_KEY="engine-key")
    assert door.chat(OPENAI_BODY).json()["object"] == "chat.completion"
    assert door.chat(STREAM).content.endswith(b"data: [DONE]\n\n")
    assert engine.chats[-1].headers["host"] == "localhost"
    assert door.client.get("/ready").json()["models"] == ["stub-model"]


@pytest.mark.parametrize("left_behind", [False, True])
def test_an_engine_whose_socket_is_not_there_or_not_served_yet_is_starting(
    open_door: OpenDoor, engine: SocketEngine, left_behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_service.engines.health.CACHE_SECONDS", 0.05)
    if left_behind:
        engine.listen()
        engine.kill()
    door = open_door(engine)
    reply = door.chat(STREAM)
    assert (reply.status_code, reply.json()["error"]["phase"]) == (503, "starting")
    engine.path.unlink(missing_ok=True)
    engine.listen()
    wait_until(lambda: door.client.get("/ready").status_code == 200, 10, "ready")


def test_a_socket_of_another_user_is_unreachable() -> None:
    # Root, as whom CI runs, may open every socket.
    failure = aiohttp.ClientConnectorError(Mock(), PermissionError(errno.EACCES, "Permission denied"))
    error = translated(failure)
    assert (error.phase, "may not open" in error.message) == ("unreachable", True)


def test_the_langchain_connector_goes_through_the_socket_too(open_door: OpenDoor, engine: SocketEngine) -> None:
    pytest.importorskip("langchain_openai", reason="the optional extra langchain is not installed in this environment")
    engine.listen()
    door = open_door(engine, LLM_CONNECTOR="langchain")
    assert door.chat(OPENAI_BODY).json()["object"] == "chat.completion"
