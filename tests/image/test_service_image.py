"""The service's image: named by $BERTH_TEST_IMAGE_LLM, never built here."""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import docker
import httpx
import pytest
from docker.errors import ImageNotFound

from tests.support.waiting import wait_until

pytestmark = [pytest.mark.image, pytest.mark.docker, pytest.mark.timeout(300)]

Start = Callable[..., Any]
# A user without a passwd entry, nothing writable at all, no privileges.
STRANGER = {
    "user": "1000540000:0",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "ports": {"9000/tcp": ("127.0.0.1", None)},
}
LISTENING = {
    "LLM_USVC_HOST": "0.0.0.0",
    "BIND_ADDR": "127.0.0.1",
    "LLM_VLLM_ENDPOINT": "http://127.0.0.1:1",
    "HOME": "/",
}


@pytest.fixture(scope="module")
def llm(engine: docker.DockerClient) -> Any:
    """The image's attributes."""
    name = os.environ.get("BERTH_TEST_IMAGE_LLM") or "berth/llm:0.1.0"
    try:
        return engine.images.get(name).attrs
    except ImageNotFound:
        pytest.skip(f"{name} is not built here (docker buildx bake llm, or name one: BERTH_TEST_IMAGE_LLM)")


@pytest.fixture
def run(engine: docker.DockerClient, llm: Any) -> Iterator[Start]:
    started: list[Any] = []

    def begin(*command: str, **options: Any) -> Any:
        start: Any = engine.containers.run
        container = start(llm["Id"], list(command), detach=True, **options)
        started.append(container)
        return container

    yield begin
    for container in started:
        container.remove(force=True)


def address(container: Any) -> str:
    container.reload()
    return f"http://127.0.0.1:{container.ports['9000/tcp'][0]['HostPort']}"


def answers(container: Any, path: str) -> int:
    try:
        return httpx.get(address(container) + path, trust_env=False).status_code
    except httpx.TransportError:
        return 0


def test_it_has_a_user_of_group_0_labels_and_no_settings(llm: Any) -> None:
    config = llm["Config"]
    assert config["User"] == "10001:0"
    assert config["Labels"]["org.opencontainers.image.title"] == "berth/llm"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert not [name for name in config["Env"] if name.startswith(("LLM_", "VLLM_"))]


def test_a_stranger_runs_it_with_nothing_writable(run: Start) -> None:
    container = run(environment=LISTENING, **STRANGER)
    wait_until(lambda: answers(container, "/health") == 200, 60, "the service answers")
    ready = httpx.get(f"{address(container)}/ready", trust_env=False)
    assert (ready.status_code, ready.json()["state"]) == (503, "starting")
    assert {answers(container, path) for path in ("/", "/page/app.js", "/page/style.css")} == {200}

    def healthy() -> bool:
        container.reload()
        return bool(container.attrs["State"]["Health"]["Status"] == "healthy")

    wait_until(healthy, 60, "the image's own health check succeeds")


def test_it_logs_json_and_ends_with_0_when_stopped(run: Start) -> None:
    container = run(environment={**LISTENING, "VLLM_API_KEY": "canary-key"}, **STRANGER)
    wait_until(lambda: answers(container, "/health") == 200, 60, "the service answers")
    container.stop(timeout=30)
    assert container.wait()["StatusCode"] == 0
    log = container.logs().decode()
    assert [json.loads(line)["message"] for line in log.splitlines()] == ["settings", "listening", "stopped"]
    assert "canary" not in log


def test_a_setting_that_is_wrong_ends_it_with_2(run: Start) -> None:
    container = run(environment={"LLM_USVC_PRT": "9000"}, **STRANGER)
    assert container.wait(timeout=60)["StatusCode"] == 2
    assert b"Did you mean LLM_USVC_PORT?" in container.logs()


def test_it_lets_no_other_machine_in_without_a_key(run: Start) -> None:
    container = run(environment={**LISTENING, "BIND_ADDR": "0.0.0.0"}, **STRANGER)
    assert container.wait(timeout=60)["StatusCode"] == 2
    assert b"BIND_ADDR=0.0.0.0 lets other machines in" in container.logs()


def test_it_holds_no_build_leftovers(run: Start) -> None:
    listing = "ls -A /tmp; ls /opt/berth; find / -xdev -name uv -type f; find /opt -name .ruff_cache -o -name '*.pyi'"
    container = run("-c", listing, entrypoint="sh", user="0")
    assert container.wait(timeout=60)["StatusCode"] == 0
    assert container.logs().decode().split() == ["llm_service"]
