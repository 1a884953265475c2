"""Where vLLM's client runs: beside the containers of a deployment, in their image, or in an environment here."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berth import deployment as deployments
from berth import images, processplan
from berth.bench.target import Target
from berth.errors import Exit, failed
from berth.host import dockers, machine
from berth.host.installing import engine_directory
from berth.paths import ROOT, STATE
from berth.runtimes import ENGINE, Runtime, Status
from berth.runtimes import compose as composed
from engine import names

INSIDE = "/bench"
_CACHE = "/cache/huggingface"
_COMMAND = ["-P", "-m", "engine.bench"]


@dataclass(frozen=True)
class Client:
    """A program that asks `url`; `about` says what of the deployment is worth keeping beside the figures.

    `begin` is called once its order lies in the folder, `end` when it has ended, however that was.
    """

    argv: list[str]
    environ: dict[str, str]
    url: str
    about: dict[str, Any]
    begin: Callable[[], None] = lambda: None
    end: Callable[[], None] = lambda: None


def of(target: Target, runtime: Runtime | None, folder: Path) -> Client:
    """The client for a target. Raises BerthError (exit code 3) where this machine has no vLLM to ask with."""
    if isinstance(runtime, composed.Runtime):
        return _container(target, runtime, folder)
    return _process(target, folder)


def _container(target: Target, runtime: composed.Runtime, folder: Path) -> Client:
    """A container of the engine's own image in the deployment's network; it gets no device and no secret."""
    found = runtime.parts()
    engine, server = found[ENGINE], found[target.name_inside]
    network = next(iter(server.attrs["NetworkSettings"]["Networks"]))
    port = next(iter(server.attrs["NetworkSettings"]["Ports"])).partition("/")[0]
    scheme = target.url.partition(":")[0]
    cache = next(
        (one.get("Name") or one["Source"] for one in engine.attrs["Mounts"] if one["Destination"] == _CACHE), ""
    )
    models = ["--volume", f"{cache}:{_CACHE}:ro", "--env", "HF_HUB_OFFLINE=1"] if cache else []
    name = f"berth-bench-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    # The folder is the caller's, and so is what is written there.
    user = [] if os.getuid() == 0 else ["--user", f"{os.getuid()}:0"]
    safe = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--init", "--network", network]
    place = ["--name", name, "--volume", f"{folder}:{INSIDE}", *models]
    image = engine.image
    assert image is not None  # the engine tells it of every container
    argv = ["docker", "run", "--rm", *safe, *user, *place, str(image.id), "python", *_COMMAND, INSIDE]
    about = {
        "image": {"tags": list(image.tags), "id": str(image.id), "labels": dict(image.labels)},
        "command": _serving(line for row in engine.top(ps_args="-eo pid,args")["Processes"] for line in row[-1:]),
    }
    url = f"{scheme}://{target.name_inside}:{port}"
    return Client(argv, dict(os.environ), url, about, lambda: _lend(folder), lambda: _remove(name))


def _lend(folder: Path) -> None:
    """What is root's is lent to the image's own user."""
    if os.getuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, images.UID, 0)


def _remove(name: str) -> None:
    from docker.errors import APIError, NotFound

    with contextlib.suppress(NotFound, APIError):
        dockers.client().containers.get(name).remove(force=True)


def _process(target: Target, folder: Path) -> Client:
    """vLLM's environment of plain processes; the device's own one, where there are several."""
    status = target.status
    wanted = [engine_directory(status.device)] if status and status.device else []
    found = [place for place in (*wanted, *sorted(STATE.glob("engine-*"))) if (place / "bin/python").exists()]
    if not found:
        hint = "install it once, with the settings of a device: scripts/berth warm --runtime native"
        raise failed("there is no vLLM on this machine to ask with", hint, Exit.MISSING_PREREQUISITE)
    device = status.device if status and status.device else found[0].name.removeprefix("engine-")
    given = {names.DEVICE: device, "PATH": f"{found[0] / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    hidden = ("PYTHONPATH", "PYTHONHOME", names.API_KEY, names.PHASE_FILE)
    environ = {name: value for name, value in {**_settings(status), **given}.items() if name not in hidden}
    about = {"command": _running_command(status)} if status else {}
    return Client([str(found[0] / "bin/python"), *_COMMAND, str(folder)], environ, target.url, about)


def _settings(status: Status | None) -> dict[str, str]:
    """The deployment's environment, which says where models are kept; this process's where that is not known."""
    files = [ROOT / file for file in status.files] if status else []
    if not status or not all(file.is_file() for file in files):
        return dict(os.environ)
    return processplan.environ(deployments.resolve(files, status.device or None))


def _running_command(status: Status) -> str:
    """The command line of the engine's process, where it is one of this machine's."""
    engine = next((part for part in status.parts if part.name == ENGINE), None)
    pid = engine.detail.partition("pid ")[2].partition(",")[0] if engine else ""
    line = machine.output(["ps", "-o", "args=", "-p", pid]) if pid.isdigit() else None
    return _serving([line or ""])


def _serving(lines: Iterable[str]) -> str:
    """The line of a process that serves; a launcher keeps secrets out of argument lists."""
    return next((str(line).strip() for line in lines if " serve " in str(line)), "")
