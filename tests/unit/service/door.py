"""The service in a thread of its own, next to a stub engine, and a client that speaks HTTP to it."""

import asyncio
import json
import signal
import socket
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from llm_service.app import create_app
from llm_service.config.settings import Settings
from llm_service.port.serving import server_config
from llm_service.port.stopping import Drain, Server
from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until

CHAT = "/v1/chat/completions"
OPENAI_BODY = {"model": "stub-model", "messages": [{"role": "user", "content": "What is deep learning?"}]}
OPEA_BODY = {"messages": {"system": "Be brief.", "user": "What is deep learning?"}}


class Running:
    """The service on a free port, in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        drain, refused = Drain(), Counter[int]()
        config = server_config(create_app(settings, drain, None, refused), settings, refused)
        self.server = Server(config, drain, settings.drain_seconds)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(lambda: self.server.started, 20, "the service starts", interval=0.005)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self.server.config.get_loop_factory()) as runner:
            runner.run(self.server.serve(sockets=[self._listener]))

    def terminate(self) -> None:
        """Do what SIGTERM does."""
        self.server.handle_exit(signal.SIGTERM, None)

    def stop(self) -> None:
        """Stop, whatever runs."""
        self.server.should_exit = True
        self.stopped()

    def stopped(self) -> None:
        """Wait until it has stopped."""
        self._thread.join(20)
        assert not self._thread.is_alive()


class SocketEngine(StubEngine):
    """A stub engine that listens on a Unix socket; until `listen` there is no such file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.socket.close()
        self.path = path
        self.url = f"unix://{path}"

    def listen(self) -> None:
        """Make the socket and begin to accept connections."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.path))
        super().listen()


@dataclass
class Door:
    """A running service, its stub engine, and a client."""

    engine: StubEngine
    service: Running
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.service.url, timeout=20, trust_env=False)

    def chat(self, body: Any, **options: Any) -> httpx.Response:
        """Post a chat request; `body` is JSON, or bytes as they are."""
        if isinstance(body, bytes):
            return self.client.post(CHAT, content=body, **options)
        return self.client.post(CHAT, json=body, **options)

    def begin(self, body: Any, *engines: StubEngine) -> socket.socket:
        """Send a chat request and hand over its connection, once the engine, or one of several, has the request."""
        raw = json.dumps(body).encode()

        def asked() -> int:
            return sum(len(engine.chats) for engine in engines or (self.engine,))

        before = asked()
        client = socket.create_connection(("127.0.0.1", self.service.port), timeout=20)
        client.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw)
        wait_until(lambda: asked() > before, 20, "the engine gets the request", interval=0.005)
        return client


def both_ready(door: Door) -> None:
    """Wait until a door in front of two engines has seen both ready."""
    wait_until(lambda: door.client.get("/ready").json()["detail"].startswith("2 of 2"), 10, "both are ready")


def envelope(reply: Any) -> dict[str, Any]:
    """The error in OpenAI's envelope, checked for its shape."""
    assert reply.headers["content-type"] == "application/json"
    error: dict[str, Any] = reply.json()["error"]
    assert error["code"] == reply.status_code
    assert set(error) >= {"message", "type", "param", "code"}
    return error
