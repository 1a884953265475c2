"""How a container ended is known, also after Docker has started it again."""

from collections.abc import Iterator

import docker as docker_py
import pytest
from docker.models.containers import Container

from berth.host.container_end import End, last_end
from tests.support.compose import STAND_IN, docker, environment, needs_engine, stand_in_images
from tests.support.waiting import wait_until

pytestmark = pytest.mark.docker


@pytest.fixture
def client() -> Iterator[docker_py.DockerClient]:
    needs_engine()
    stand_in_images()
    client = docker_py.DockerClient.from_env(environment=environment({}))
    yield client
    client.close()


@pytest.fixture
def begin(client: docker_py.DockerClient) -> Iterator[object]:
    """Begin a container with a script and a restart policy."""
    begun: list[str] = []

    def one(script: str, policy: str) -> Container:
        image = f"{STAND_IN['BERTH_REGISTRY']}/llm:{STAND_IN['BERTH_VERSION']}"
        words = ["run", "--detach", f"--restart={policy}", "--entrypoint=sh", image, "-c", script]
        begun.append(docker(*words).strip())
        return client.containers.get(begun[-1])

    yield one
    for name in begun:
        docker("rm", "--force", "--volumes", name)


def seen(container: Container, status: str) -> Container:
    def there() -> bool:
        container.reload()
        return bool(container.attrs["State"]["Status"] == status)

    wait_until(there, 60, f"the container is {status}")
    return container


def test_one_that_runs_has_not_ended(client: docker_py.DockerClient, begin: object) -> None:
    assert callable(begin)
    assert last_end(client, seen(begin("sleep 600", "no"), "running")) is None


def test_one_that_ended_says_how(client: docker_py.DockerClient, begin: object) -> None:
    assert callable(begin)
    assert last_end(client, seen(begin("exit 3", "no"), "exited")) == End(3, out_of_memory=False)


def test_one_that_runs_again_says_how_it_ended_before(client: docker_py.DockerClient, begin: object) -> None:
    assert callable(begin)
    container = begin("test -e /tmp/second && exec sleep 600; touch /tmp/second; exit 7", "always")
    wait_until(lambda: container.reload() or container.attrs["RestartCount"], 60, "Docker starts it again")
    assert last_end(client, seen(container, "running")) == End(7, out_of_memory=False)
