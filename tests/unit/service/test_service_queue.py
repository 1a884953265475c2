"""Bounds and waiting seen from outside: what clients are answered, and what the engine is asked."""

import hashlib
import json
import logging
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPENAI_BODY, Door

OpenDoor = Callable[..., Door]


@contextmanager
def held(door: Door, **options: Any) -> Iterator[None]:
    """A stream that the engine does not end, until its client leaves."""
    door.engine.knobs.hold = "after first piece"
    with door.client.stream("POST", CHAT, json={**OPENAI_BODY, "stream": True}, **options) as reply:
        pieces = reply.iter_raw()  # when nobody holds it, the stream is closed
        next(pieces)
        yield


def test_beyond_the_bounds_the_answer_is_503_at_once_until_a_client_leaves(open_door: OpenDoor) -> None:
    door = open_door(LLM_MAX_IN_FLIGHT="1", LLM_MAX_QUEUED="0")
    with held(door):
        refused = door.chat(OPENAI_BODY)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["error"]["type"] == "OverloadedError"
        assert door.client.get("/ready").status_code == 200
    wait_until(lambda: door.chat(OPENAI_BODY).status_code == 200, 10, "the place is free again")
    assert len(door.engine.chats) == 2


def waiting(door: Door) -> int:
    """How many requests wait for a place, by the service's metrics."""
    (line,) = [one for one in door.client.get("/metrics").text.splitlines() if one.startswith("berth_requests_queued ")]
    return int(float(line.split()[1]))


def test_who_waits_is_served_when_its_turn_comes(open_door: OpenDoor) -> None:
    door = open_door(LLM_MAX_IN_FLIGHT="1", LLM_MAX_QUEUED="1")
    with ThreadPoolExecutor(1) as thread:
        with held(door):
            served = thread.submit(door.chat, OPENAI_BODY)
            wait_until(lambda: waiting(door) == 1, 10, "one waits")
            assert door.chat(OPENAI_BODY).status_code == 503
            assert len(door.engine.chats) == 1
        assert served.result(20).status_code == 200


def test_who_leaves_while_it_waits_is_never_sent_to_the_engine(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llm_service.access")
    door = open_door(LLM_MAX_IN_FLIGHT="1", LLM_MAX_QUEUED="1")
    body = json.dumps(OPENAI_BODY).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with held(door):
        with socket.create_connection(("127.0.0.1", door.service.port)) as leaves:
            leaves.sendall(head + body)
            wait_until(lambda: waiting(door) == 1, 10, "it waits")
        wait_until(lambda: waiting(door) == 0, 10, "it has left")
    wait_until(lambda: door.chat(OPENAI_BODY).status_code == 200, 10, "the place is free")
    assert len(door.engine.chats) == 2
    assert "client gone" in [outcome(record) for record in caplog.records]


def outcome(record: logging.LogRecord) -> str:
    return str(getattr(record, "fields", {}).get("outcome"))


def test_a_keys_own_limits_are_429_and_concern_nobody_else(open_door: OpenDoor, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    digests = {name: hashlib.sha256(f"{name}-key".encode()).hexdigest() for name in ("narrow", "slow", "free")}
    limits = {"narrow": "max_in_flight=1", "slow": "requests_per_minute=1", "free": ""}
    file.write_text("".join(f"{name} sha256:{digests[name]} {limits[name]}\n" for name in digests))
    door = open_door(LLM_API_KEYS_FILE=str(file))

    def ask(name: str) -> httpx.Response:
        return door.chat(OPENAI_BODY, headers={"Authorization": f"Bearer {name}-key"})

    with held(door, headers={"Authorization": "Bearer narrow-key"}):
        refused = ask("narrow")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["type"] == "RateLimitError"
        assert [ask(name).status_code for name in ("slow", "free", "free")] == [200, 200, 200]
        refused = ask("slow")
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
    wait_until(lambda: ask("narrow").status_code == 200, 10, "its own request has ended")
