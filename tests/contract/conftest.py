"""Real vLLM with the demo model, and services in front of it, for all the tests that look at both."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.service_stack import Stack
from tests.support.engine_python import ROOT, engine_python
from tests.support.waiting import free_port, wait_until


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


@pytest.fixture(scope="session")
def open_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """Starts the engine once, and a service in front of it for each set of settings."""
    directory = tmp_path_factory.mktemp("logs")
    port = free_port()
    phases = str(directory / "phase.json")
    shared = {"LLM_VLLM_MODEL_NAME": "demo", "LLM_VLLM_PORT": str(port), "LLM_PHASE_FILE": phases}
    waited: list[dict[str, Any]] = []
    client = httpx.Client(timeout=120, trust_env=False)
    cpu = {"LLM_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENFORCE_EAGER": "true"}
    tools = {"VLLM_ENABLE_AUTO_TOOL_CHOICE": "true", "VLLM_TOOL_CALL_PARSER": "pythonic"}
    engine = start("engine.serve", engine_python(), ROOT, directory / "engine.log", **shared, **cpu, **tools)
    running = [engine]

    def make(*, key: str | None = None, **settings: str) -> Stack:
        own = free_port()
        if key is not None:
            (directory / "keys").write_text(f"{key}\n", encoding="utf-8")
            settings["LLM_API_KEYS_FILE"] = str(directory / "keys")
        log = directory / f"service-{own}.log"
        given = {**shared, "LLM_USVC_PORT": str(own), **settings}
        service = start("llm_service", Path(sys.executable), ROOT / "microservice", log, **given)
        running.append(service)
        stack = Stack(f"http://127.0.0.1:{own}", f"http://127.0.0.1:{port}", client, waited)

        def ready() -> bool:
            for process, output in ((engine, directory / "engine.log"), (service, log)):
                assert process.poll() is None, output.read_text()[-4000:]
            try:
                shown = {"Authorization": f"Bearer {key}"}
                reply = client.get(f"{stack.url}/ready", headers=shown)
                if reply.status_code == 503:
                    waited.append(reply.json())
                return reply.status_code == 200
            except httpx.TransportError:
                return False

        # Often: on a fast machine a phase of the start is over in a few tenths of a second.
        wait_until(ready, 600, "the service is ready", interval=0.02)
        return stack

    try:
        yield make
    finally:
        client.close()
        for process in reversed(running):
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="session")
def stack(open_stack: Callable[..., Stack]) -> Stack:
    return open_stack()
