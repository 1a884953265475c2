"""Docker Compose: driven by its own command line; the engine behind it is asked through docker-py."""

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from berth import envfiles, images, staying, waiting
from berth.deployment import LOCAL, Deployment
from berth.errors import Exit, Problem, failed
from berth.host import containers, dockers, hub, machine
from berth.host.container_end import last_end
from berth.host.installing import reason
from berth.paths import ROOT, in_root, shown
from berth.progress import Progress
from berth.runtimes import ENGINE, NOTHING, SERVICE, Endpoint, Part, Ready, Request, Status
from berth.runtimes.compose_cli import ComposeCli, last_line
from engine import credentials, names
from engine.messages import mask
from engine.phases import STARTING, Phase

if TYPE_CHECKING:
    from docker.models.containers import Container

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_FILES = "com.docker.compose.project.config_files"
_CACHE = "/cache/huggingface/hub"
_CERTIFICATE = "/run/llm_tls_cert"
FIRST_STEP = "prepare"  # ends when it has done its work


class Runtime:
    """Containers of this checkout's Compose project."""

    name = "compose"
    local = True

    def __init__(self, request: Request = NOTHING) -> None:
        request.only_here(self.name)
        self._cli = ComposeCli()
        self.images_of = self._cli.images_of
        """As `ComposeCli` has it."""

    def unavailable(self) -> Problem | None:
        """A Docker Engine must answer, and Compose must be recent."""
        return dockers.problem()

    def problems(self, deployment: Deployment) -> list[Problem]:
        """A cache that is a path must be a directory that the image's user, of group 0, can write to."""
        cache = _cache_path(deployment)
        if cache is None or not _local_engine():
            return []
        if cache.is_dir() and (cache.stat().st_mode & 0o022 or cache.stat().st_uid == images.UID):
            return []
        return [
            Problem(
                f"BERTH_CACHE={cache}: not a directory that the containers can write to",
                f"make it, and let user {images.UID} or group 0 write to it; or leave BERTH_CACHE unset",
                Exit.MISSING_PREREQUISITE,
            )
        ]

    def commands(self, deployment: Deployment) -> list[str]:
        """The builds of the images that are missing, and `docker compose up`."""
        missing = [image for image in self.images_of(deployment) if not images.exists(image.tag)]
        lines = [shlex.join(image.build_command()) for image in missing if not image.is_published]
        up = shlex.join(self._cli.words(deployment, "up", "--detach", "--no-build"))
        return [*lines, in_root(up)]

    def render(self, deployment: Deployment) -> str:
        """The Compose model as Compose sees it, secrets masked."""
        return mask(self._cli.config(deployment), credentials.secrets(deployment.environ)).rstrip()

    def start(self, deployment: Deployment, progress: Progress, attached: bool) -> None:
        """Get the images, then `docker compose up`. Raises BerthError, with nothing left running.

        Containers belong to the engine, so `attached` changes nothing here.
        """
        images.provide(self.images_of(deployment), progress)
        progress.show(Phase(STARTING))
        command = self._cli.words(deployment, "up", "--detach", "--no-build")
        try:
            done = self._cli.run(command, deployment)
            if done.returncode:
                sentence, hint = self._refusal()
                if sentence:
                    raise failed(sentence, hint, Exit.BAD_SETTING)
                by_hand = f"try it yourself: {shlex.join(command)}"
                raise failed(f"docker compose could not start: {last_line(done.stderr)}", by_hand)
        except BaseException:
            self.stop(progress)
            raise

    def wait(self, deployment: Deployment, progress: Progress, timeout_s: float, attached: bool) -> Ready:
        """Until the service says that the engine is ready."""
        return waiting.ready(self, deployment, progress, timeout_s)

    def stay(self, progress: Progress, tell: Callable[[], None], show_logs: bool) -> None:
        """Show the logs; Ctrl-C stops what was started."""
        staying.stay(self, progress, tell, show_logs)

    def failure(self) -> Problem | None:
        """An engine that ended before it was ready; Compose would start it again and again."""
        engine = self._container(ENGINE)
        if engine is None:
            return Problem("the engine's container is gone", "docker compose -p berth ps -a says what is left")
        if (end := last_end(dockers.client(), engine)) is None:
            return None
        why = "ended" if end.code is None else f"ended with exit code {end.code}"
        if end.out_of_memory:
            why = "was killed for lack of memory"
        known = [code for code in (Exit.BAD_SETTING, Exit.MISSING_PREREQUISITE) if code == end.code]
        return Problem(f"the engine {why}", "scripts/berth logs engine", *(known or [Exit.FAILED]))

    def downloaded(self, deployment: Deployment) -> int | None:
        """Bytes in the hub cache of the engine's container."""
        engine = self._container(ENGINE)
        if engine is None or engine.status != "running":
            return None
        place = str(hub.folder(deployment.model, Path(_CACHE)) / "blobs")
        code, said = engine.exec_run(["du", "-s", "--block-size=1", place])
        return int(said.split()[0]) if code == 0 and isinstance(said, bytes) else None

    def has_model(self, deployment: Deployment) -> bool:
        """Whether the cache holds the model; a volume is looked into by a container, since only those can."""
        if cache := _cache_path(deployment):
            return hub.is_cached(deployment.model, cache / "hub")
        volume, image = f"{self._cli.project(deployment)}_models", self.images_of(deployment)[0].tag
        return images.exists(image) and images.volume_holds(volume, image, hub.folder(deployment.model, Path("hub")))

    def free_bytes(self, deployment: Deployment) -> int | None:
        """Free space where the cache is, if that is on this machine."""
        cache = _cache_path(deployment)
        root = Path(str(dockers.client().info().get("DockerRootDir", "/")))
        return machine.free_bytes(cache or root) if _local_engine() else None

    def logs(self, part: str | None, follow: bool, tail: int | None) -> Iterator[str]:
        """The containers' logs; with both parts, each line begins with its part's name."""
        parts = [part] if part else [ENGINE, SERVICE]
        for name, line in containers.read_logs({name: partial(self._container, name) for name in parts}, follow, tail):
            yield line if part else f"{name:6} | {line}"

    def stop_commands(self) -> list[str]:
        """`docker compose down`, which keeps volumes."""
        return [shlex.join(self._down())] if self.parts() else []

    def stop(self, progress: Progress) -> bool:
        """Take the project down; the grace time for requests in flight is in the Compose file."""
        if not self.parts():
            return False
        done = subprocess.run(self._down(), cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            by_hand = f"try it yourself: {shlex.join(self._down())}"
            raise failed(f"docker compose could not stop: {last_line(done.stderr)}", by_hand)
        return True

    def status(self, deployment: Deployment | None = None) -> Status:
        """From the containers that carry this checkout's Compose labels."""
        found = self.parts()
        engine, service = found.get(ENGINE), found.get(SERVICE)
        if not engine or not service or not {engine.status, service.status} & {"running", "restarting"}:
            return Status(self.name, "stopped")
        environ = dict(line.partition("=")[::2] for line in engine.attrs["Config"]["Env"])
        files = [shown(Path(file)) for file in engine.labels.get(f"{_PROJECT}.environment_file", "").split(",") if file]
        others = sorted(found.keys() - {ENGINE, SERVICE, FIRST_STEP})  # of an overlay
        parts = tuple(Part(name, *containers.described(found[name])) for name in (ENGINE, SERVICE, *others))
        states = {part.state for part in parts}
        overall = "running" if states == {"healthy"} else "degraded" if states & {"exited", "dead"} else "starting"
        return Status(
            self.name,
            overall,
            environ.get(names.DEVICE) or Path(environ.get("BERTH_DEVICE_ENV", "")).stem,
            environ.get(names.MODEL, ""),
            tuple(files),
            self._endpoint(engine, service),
            parts,
            {"project": engine.labels[_PROJECT]},
        )

    def _endpoint(self, engine: "Container", service: "Container") -> Endpoint:
        file = containers.mounted(service, _CERTIFICATE)
        certificate = "" if file == os.devnull else file
        door = containers.published(service, tls=bool(certificate))
        return Endpoint(door, containers.published(engine), certificate=certificate)

    def _down(self) -> list[str]:
        return ["docker", "compose", "-p", project_name(), "down"]

    def parts(self) -> dict[str, "Container"]:
        """This checkout's containers by service name; other projects, and other checkouts, are none of our business.

        Nor are those of `docker compose run`, in which a batch runs beside them.
        """
        labels = [f"{_PROJECT}={project_name()}", f"{_PROJECT.rpartition('.')[0]}.oneoff=False"]
        found = dockers.client().containers.list(all=True, filters={"label": labels}, ignore_removed=True)
        ours = str(ROOT / "compose") + os.sep
        return {each.labels[_SERVICE]: each for each in found if each.labels.get(_FILES, "").startswith(ours)}

    def _container(self, service: str) -> "Container | None":
        return self.parts().get(service)

    def _refusal(self) -> tuple[str, str]:
        """What a container that checks the settings said before it ended."""
        for name, container in self.parts().items():
            if name != SERVICE:
                sentence, hint = reason(container.logs(tail=50).decode(errors="replace"))
                if sentence:
                    return sentence, hint
        return "", ""


def project_name() -> str:
    """Compose's project: COMPOSE_PROJECT_NAME of the shell or env/local.env, else the name in compose/base.yaml."""
    name = "COMPOSE_PROJECT_NAME"
    if given := os.environ.get(name):
        return given
    local = ROOT / LOCAL
    if local.exists() and (setting := envfiles.read(local, shown(local)).get(name)) and setting.value:
        return setting.value
    match = re.search(r"^name: *(\S+)", (ROOT / "compose" / "base.yaml").read_text(), re.MULTILINE)
    return match[1] if match else "berth"


def _cache_path(deployment: Deployment) -> Path | None:
    """BERTH_CACHE where it is a path; Compose takes it relative to compose/. None for a volume."""
    cache = deployment.value("BERTH_CACHE")
    return (ROOT / "compose" / Path(cache).expanduser()).resolve() if cache.startswith((".", "/", "~")) else None


def _local_engine() -> bool:
    return str(dockers.client().api.base_url).startswith("http+docker://")
