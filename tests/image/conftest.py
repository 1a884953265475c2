"""The CPU image under test: named by $BERTH_TEST_IMAGE_CPU, never built here."""

import os
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import DockerException, ImageNotFound

from tests.image.container import Started


@pytest.fixture(scope="session")
def engine() -> docker.DockerClient:
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except DockerException:
        pytest.skip("no Docker Engine answers here (scripts/test --all starts one on Debian)")
    return client


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> str:
    name = os.environ.get("BERTH_TEST_IMAGE_CPU") or "berth/vllm-cpu:0.1.0"
    try:
        engine.images.get(name)
    except ImageNotFound:
        pytest.skip(f"{name} is not built here (scripts/berth build --device cpu, or name one: BERTH_TEST_IMAGE_CPU)")
    return name


@pytest.fixture(scope="session")
def details(engine: docker.DockerClient, image: str) -> dict[str, Any]:
    attributes: dict[str, Any] = engine.images.get(image).attrs
    return attributes


@pytest.fixture(scope="module")
def start(engine: docker.DockerClient, image: str) -> Iterator[Any]:
    """Start containers of the image with `start(*command, **docker_options)`; all are removed in the end."""
    started: list[Started] = []

    def begin(*command: str, **options: Any) -> Started:
        container = Started.begin(engine, image, command, options)
        started.append(container)
        return container

    yield begin
    for container in started:
        container.remove()
