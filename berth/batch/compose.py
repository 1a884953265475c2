"""A batch in a container of its own, from the Compose file's engine: `docker compose run`."""

import contextlib
import hashlib
import os
import subprocess
from pathlib import Path

from berth import images
from berth.batch.local import Program
from berth.deployment import Deployment
from berth.host import dockers
from berth.paths import ROOT, from_root
from berth.progress import Progress
from berth.runtimes import NOTHING
from berth.runtimes.compose import Runtime

name = "compose"
INSIDE = "/batch"


def program(deployment: Deployment, folder: Path, words: list[str]) -> Program:
    """The engine's service with another program; the first step runs before it and hands out the secrets."""
    files = [word for file in deployment.files for word in ("--env-file", from_root(file))]
    # The folder is the caller's, and so is what is written there; root's is lent to the image's own user.
    user = [] if os.getuid() == 0 else ["--user", f"{os.getuid()}:0"]
    place = ["--name", container(folder), "--volume", f"{folder}:{INSIDE}"]
    program = ["python", "-P", *(word.format(folder=INSIDE) for word in words)]
    argv = ["docker", "compose", *files, "run", "--rm", "-T", *user, *place, "engine", *program]
    return Program(argv, ROOT, deployment.shell)


def container(folder: Path) -> str:
    """The container's name, always the same for a folder."""
    return f"berth-batch-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def prepare(deployment: Deployment, folder: Path, progress: Progress) -> None:
    """Get the images; remove a container that outlived its command; let the container write to the folder."""
    images.provide(Runtime(NOTHING).images_of(deployment), progress)
    _remove(folder)
    if os.getuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, images.UID, 0)


def interrupt(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    """Remove the container: what is written down is on this machine."""
    _remove(folder)


def _remove(folder: Path) -> None:
    from docker.errors import APIError, NotFound

    with contextlib.suppress(NotFound, APIError):
        dockers.client().containers.get(container(folder)).remove(force=True)
