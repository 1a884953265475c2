"""The whole stack from real images: started once, taken down with its volumes at the end."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.compose import Project, docker, needs_engine
from tests.support.waiting import free_port, wait_until

READY_SECONDS = 900  # a bound for hangs: real vLLM on two shared cores


@dataclass
class Stack:
    """A running stack: its project, and a client for each port."""

    project: Project
    engine: httpx.Client
    service: httpx.Client

    def state(self) -> dict[str, Any]:
        """What the service says of the engine; {} while it does not answer."""
        try:
            said: dict[str, Any] = self.service.get("/ready").json()
        except httpx.TransportError:
            return {}
        return said

    def wait_until_ready(self) -> None:
        """Wait until a chat request would be answered."""
        wait_until(lambda: self.state().get("state") == "ready", READY_SECONDS, "the stack being ready", 1.0)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """`docker compose --env-file env/cpu.env --env-file env/models/demo.env up`, not waited for."""
    needs_engine()
    images = {name: os.environ[name] for name in ("BERTH_REGISTRY", "BERTH_VERSION") if name in os.environ}
    shell = {"LLM_VLLM_PORT": str(free_port()), "LLM_USVC_PORT": str(free_port()), **images}
    with Project(["env/cpu.env", "env/models/demo.env"], shell) as project:
        for service in project.config()["services"].values():
            if docker("image", "inspect", service["image"], check=False).strip() in ("", "[]"):
                pytest.skip(f"no image {service['image']} here (scripts/test stack builds it)")
        project.run("up", "--detach", "--no-build")
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{shell['LLM_VLLM_PORT']}", timeout=120, trust_env=False) as engine,
            httpx.Client(base_url=f"http://127.0.0.1:{shell['LLM_USVC_PORT']}", timeout=120, trust_env=False) as door,
        ):
            yield Stack(project, engine, door)


@pytest.fixture
def ready(stack: Stack) -> Stack:
    """The stack, once it answers."""
    stack.wait_until_ready()
    return stack
