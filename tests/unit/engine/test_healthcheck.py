"""Healthy means that the engine answers and lists the name that it is to serve."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from engine.healthcheck import healthy


class Engine(BaseHTTPRequestHandler):
    """Lists one model, behind a key, when it is told to be well."""

    well = True
    key = ""

    def do_GET(self) -> None:
        allowed = self.path == "/health" or not self.key or self.headers["Authorization"] == f"Bearer {self.key}"
        self.send_response(200 if self.well and allowed else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": "demo"}]}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Settings for a stand-in engine, with a proxy that would swallow every request."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setattr(Engine, "well", True)
    monkeypatch.setattr(Engine, "key", "")
    with HTTPServer(("127.0.0.1", 0), Engine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_port)
        yield {"LLM_DEVICE": "cpu", "LLM_VLLM_MODEL_NAME": "demo", "LLM_VLLM_PORT": port, "LLM_VLLM_HOST": "0.0.0.0"}
        server.shutdown()


def test_healthy_when_the_served_name_is_listed(environ: dict[str, str]) -> None:
    assert healthy(environ)
    assert healthy({**environ, "LLM_VLLM_MODEL_NAME": "org/model", "VLLM_SERVED_MODEL_NAME": "demo"})


def test_unhealthy_when_another_model_is_listed(environ: dict[str, str]) -> None:
    assert not healthy({**environ, "LLM_VLLM_MODEL_NAME": "org/model"})


def test_unhealthy_when_the_engine_says_so(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "well", False)
    assert not healthy(environ)


def test_unhealthy_when_nothing_listens(environ: dict[str, str]) -> None:
    assert not healthy({**environ, "LLM_VLLM_PORT": "1"})


def test_the_key_is_shown_to_the_engine(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "key", "sesame")
    assert not healthy(environ)
    assert healthy({**environ, "VLLM_API_KEY": "sesame"})
