"""One container of an engine image, and what tests ask of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import docker
import httpx

from tests.support.waiting import wait_until

# As clusters run it: a user without a passwd entry, nothing writable but two places, no privileges.
STRANGER: Mapping[str, Any] = {
    "user": "1000540000:0",
    "read_only": True,
    "tmpfs": {"/tmp": "", "/cache": "exec,mode=1777"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}
LOADING_S = 400  # a first start on a busy machine with two cores


class Started:
    """A container that was started, with its port published on loopback."""

    def __init__(self, container: Any) -> None:  # docker-py's stubs are too narrow for what it takes and gives
        self.container = container

    @classmethod
    def begin(
        cls, engine: docker.DockerClient, image: str, command: Sequence[str], options: Mapping[str, Any]
    ) -> "Started":
        run: Any = engine.containers.run
        return cls(run(image, list(command), detach=True, ports={"8008/tcp": ("127.0.0.1", None)}, **options))

    def log(self) -> str:
        """What it has written so far, to both streams."""
        text: bytes = self.container.logs()
        return text.decode(errors="replace")

    def exit_code(self, timeout: float = 120) -> int:
        """Wait for its end. Raises requests' ReadTimeout after `timeout` seconds."""
        return int(self.container.wait(timeout=timeout)["StatusCode"])

    def run(self, *command: str) -> tuple[int, str]:
        """Exit code and output of a program run inside it."""
        done = self.container.exec_run(list(command))
        return int(done.exit_code), done.output.decode(errors="replace")

    def client(self) -> httpx.Client:
        """A client of its API."""
        self.container.reload()
        port = self.container.ports["8008/tcp"][0]["HostPort"]
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)

    def wait_until_ready(self) -> None:
        """Wait until the model answers. Raises AssertionError with the log's end when the server dies or is late."""

        def ready() -> bool:
            self.container.reload()
            assert self.container.status == "running", self.log()[-3000:]
            try:
                with self.client() as client:
                    return client.get("/v1/models").is_success
            except (httpx.HTTPError, IndexError, KeyError):
                return False

        wait_until(ready, LOADING_S, "the model is served", interval=0.5)

    def remove(self) -> None:
        """Kill and delete it with its anonymous volumes."""
        self.container.remove(force=True, v=True)
