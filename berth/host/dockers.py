"""The Docker Engine and the Compose that this machine has."""

import os
import re
import shutil
from functools import lru_cache
from typing import TYPE_CHECKING

from berth.errors import Exit, Problem
from berth.host import machine

if TYPE_CHECKING:
    from docker import DockerClient

OLDEST_COMPOSE = (2, 30)  # the first with `format: raw` in env_file
PING_TIMEOUT_S = 5


class Unreachable(Exception):
    """No Docker Engine answers; the text says where it was looked for and why not."""


@lru_cache(maxsize=1)
def client() -> "DockerClient":
    """A client of the engine that the `docker` command would talk to. Raises Unreachable."""
    import docker
    from docker.errors import DockerException

    address = host()
    try:
        environ = {**os.environ, **({"DOCKER_HOST": address} if address else {})}
        found = docker.from_env(environment=environ, timeout=PING_TIMEOUT_S)
        found.ping()
        found.api.timeout = None  # type: ignore[assignment] # a followed log may be silent for hours
    except (DockerException, OSError, ValueError) as error:
        raise Unreachable(f"{address or 'unix:///var/run/docker.sock'}: {_cause(error)}") from error
    return found


def host() -> str | None:
    """Its address where that is not the usual socket, for programs that know nothing of contexts."""
    return os.environ.get("DOCKER_HOST") or _context_host()


def _context_host() -> str | None:
    """The address of the context that `docker context use` chose: rootless engines are reached so."""
    from docker.context import ContextAPI

    try:
        context = ContextAPI.get_current_context()
        return str(context.Host) if context and context.name != "default" else None
    except Exception:  # the file that it reads is the user's, and docker-py says nothing about what it raises
        return None


def _cause(error: BaseException) -> str:
    """The system's own words, which docker-py wraps several layers deep."""
    found = re.findall(r"(No such file or directory|Permission denied|Connection refused|timed out)", str(error))
    return found[-1] if found else str(error).splitlines()[0][:200]


def compose_version() -> tuple[int, int] | None:
    """Compose's version, or None where `docker compose` does not run."""
    text = machine.output(["docker", "compose", "version", "--short"])
    match = re.match(r"v?(\d+)\.(\d+)", text or "")
    return (int(match[1]), int(match[2])) if match else None


def problem() -> Problem | None:
    """Why Compose cannot be used here, or None."""
    missing = Exit.MISSING_PREREQUISITE
    if not shutil.which("docker"):
        return Problem("there is no docker command on PATH", "install Docker Engine, or use --runtime native", missing)
    try:
        client()
    except Unreachable as error:
        denied = "Permission denied" in str(error)
        hint = (
            "add yourself to the group docker and log in again" if denied else "start it: sudo systemctl start docker"
        )
        return Problem(f"no Docker Engine answers ({error})", f"{hint}; or use --runtime native", missing)
    return compose_problem()


def compose_problem() -> Problem | None:
    """Why the command of Compose cannot be used here, whatever engine it would speak to, or None."""
    missing = Exit.MISSING_PREREQUISITE
    if not shutil.which("docker"):
        return Problem("there is no docker command on PATH", "install Docker's command line with Compose", missing)
    version = compose_version()
    if version is None:
        return Problem(
            "Docker has no Compose plugin",
            "install the package docker-compose-plugin, or use --runtime native",
            missing,
        )
    if version < OLDEST_COMPOSE:
        have, need = (".".join(map(str, numbers)) for numbers in (version, OLDEST_COMPOSE))
        return Problem(
            f"Compose is version {have}, and {need} or newer is needed",
            "update the package docker-compose-plugin, or use --runtime native",
            missing,
        )
    return None
