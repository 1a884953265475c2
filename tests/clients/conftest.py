"""Real vLLM with the demo model, and the service with a key in front of it: what every client here talks to.

The engine has a key of its own, so a client's key that were passed on would be refused by it.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from models.demo.train import text
from tests.support.engine_python import ROOT, engine_python
from tests.support.waiting import free_port, wait_until

SERVICE_PYTHON = ROOT / ".berth" / "venv" / "bin" / "python"
KEY = "client-key-0123456789abcdef"
QUESTION = "What is Deep Learning?"
ANSWER = next(entry.answer for entry in text.load().known if QUESTION in entry.ask)


@dataclass(frozen=True)
class Door:
    """Where the service is, and what opens it."""

    root: str
    key: str = KEY

    @property
    def v1(self) -> str:
        """What clients of OpenAI's interface call the base URL."""
        return f"{self.root}/v1"


def pytest_configure(config: pytest.Config) -> None:
    """What others' packages warn of, or leave open, is no failure of ours."""
    config.addinivalue_line("filterwarnings", "default")


def start(module: str, python: Path, directory: Path, log: Path, **settings: str) -> subprocess.Popen[bytes]:
    """Start a program of this checkout with nothing of this test's own settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_", "VLLM_"))}
    path = f"{python.parent}:{os.environ['PATH']}"
    environ = {**clean, "PATH": path, "PYTHONPATH": str(directory), "HF_HUB_OFFLINE": "1", **settings}
    with log.open("wb") as output:
        return subprocess.Popen([python, "-P", "-m", module], env=environ, stdout=output, stderr=subprocess.STDOUT)


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Both programs, ready, for all tests of this run."""
    if not SERVICE_PYTHON.exists():
        pytest.skip("no environment for the service here (scripts/test makes it)")
    directory = tmp_path_factory.mktemp("logs")
    keys = directory / "keys"
    keys.touch(0o600)
    keys.write_text(f"{KEY}\n")
    engine_port, port = free_port(), free_port()
    shared = {"LLM_VLLM_MODEL_NAME": "demo", "LLM_VLLM_PORT": str(engine_port), "VLLM_API_KEY": "the-engines-own-key"}
    cpu = {
        "LLM_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENFORCE_EAGER": "true",
        # The demo model, held to a schema, would write blanks for as long as it may.
        "VLLM_STRUCTURED_OUTPUTS_CONFIG": '{"backend": "xgrammar", "disable_any_whitespace": true}',
    }
    settings = {**shared, "LLM_USVC_PORT": str(port), "LLM_API_KEYS_FILE": str(keys)}
    running = {
        directory / "engine.log": start(
            "engine.serve", engine_python(), ROOT, directory / "engine.log", **shared, **cpu
        ),
        directory / "service.log": start(
            "llm_service", SERVICE_PYTHON, ROOT / "microservice", directory / "service.log", **settings
        ),
    }
    address = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        for log, process in running.items():
            assert process.poll() is None, log.read_text()[-4000:]
        try:
            headers = {"Authorization": f"Bearer {KEY}"}
            return httpx.get(f"{address}/ready", headers=headers, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(ready, 600, "the service is ready", interval=0.5)
        yield Door(address)
    finally:
        for process in reversed(running.values()):
            process.terminate()
            process.wait(60)
