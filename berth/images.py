"""Images: which there are, built where they are missing, or pulled from a registry that was named."""

import shlex
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from berth.buildlog import BuildLog
from berth.errors import Exit, failed
from berth.host import dockers
from berth.paths import ROOT, RUN, shown
from berth.progress import Progress
from engine.phases import BUILDING, PULLING, Phase

if TYPE_CHECKING:
    from docker import DockerClient

UID = 10001  # the user of every image; the Dockerfiles and their tests hold it


@dataclass(frozen=True)
class Image:
    """An image and how the Compose model says to build it."""

    tag: str
    context: str
    dockerfile: str
    args: Mapping[str, str]
    contexts: Mapping[str, str]
    secrets: Mapping[str, str]

    @classmethod
    def of(cls, service: Mapping[str, Any], secrets: Mapping[str, Any]) -> "Image":
        """From a service of the resolved Compose model and the model's secrets."""
        build = service.get("build", {})
        wanted = [secret["source"] for secret in build.get("secrets", [])]
        return cls(
            tag=service["image"],
            context=build.get("context", str(ROOT)),
            dockerfile=build.get("dockerfile", "Dockerfile"),
            args={name: value for name, value in build.get("args", {}).items() if value is not None},
            contexts=build.get("additional_contexts", {}),
            secrets={name: secrets[name]["file"] for name in wanted},
        )

    @property
    def is_published(self) -> bool:
        """Whether the tag names a registry. `berth/…` does not: asking a public registry for it could get anything."""
        first = self.tag.partition("/")[0]
        return "/" in self.tag and ("." in first or ":" in first or first == "localhost")

    def build_command(self, no_cache: bool = False) -> list[str]:
        """The build by Buildx: docker-py only speaks to the old builder, without secrets and named contexts."""
        words = [
            "docker",
            "buildx",
            "build",
            "--load",
            "--tag",
            self.tag,
            "--file",
            str(Path(self.context, self.dockerfile)),
        ]
        for name, value in self.args.items():
            words += ["--build-arg", f"{name}={value}"]
        for name, place in self.contexts.items():
            words += ["--build-context", f"{name}={place}"]
        for name, file in self.secrets.items():
            words += ["--secret", f"id={name},src={file}"]
        return [*words, *(["--no-cache"] if no_cache else []), self.context]


def exists(tag: str) -> bool:
    """Whether the engine has an image of this tag."""
    from docker.errors import ImageNotFound

    try:
        dockers.client().images.get(tag)
    except ImageNotFound:
        return False
    return True


def provide(images: Iterable[Image], progress: Progress) -> None:
    """Make sure that every image is there: pulled if its tag names a registry, else built. Raises BerthError."""
    for image in images:
        if not exists(image.tag):
            if image.is_published:
                pull(image.tag, progress)
            else:
                build(image, progress)


def build(image: Image, progress: Progress, no_cache: bool = False) -> None:
    """Build one image. Raises BerthError with the step that failed and its last words."""
    RUN.mkdir(parents=True, exist_ok=True)
    name = image.tag.rpartition("/")[2].partition(":")[0]
    kept = RUN / f"build-{name}.log"
    command = image.build_command(no_cache)
    progress.show(Phase(BUILDING, None, image.tag))
    said = BuildLog()
    with (
        open(kept, "w") as file,
        subprocess.Popen(
            [*command[:3], "--progress", "rawjson", *command[3:]],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            for line in process.stderr or ():
                said.feed(line)
                file.writelines(f"{text}\n" for text in said.new_lines())
                progress.show(Phase(BUILDING, said.fraction, f"{image.tag}: {said.step}"))
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise failed(
            f"building {image.tag} failed: {said.error or 'no message'}",
            f"the whole log: {shown(kept)}; by hand: {shlex.join(command)}",
        )


def pull(tag: str, progress: Progress) -> None:
    """Pull one image, by the engine's own stream of progress. Raises BerthError."""
    from docker.errors import APIError, DockerException

    repository, _, version = tag.rpartition(":")
    layers: dict[str, tuple[int, int]] = {}
    progress.show(Phase(PULLING, None, tag))
    try:
        for event in dockers.client().api.pull(repository, version, stream=True, decode=True):
            if "error" in event:
                raise failed(f"pulling {tag} failed: {event['error']}", *_PULL_HINT)
            counts = event.get("progressDetail") or {}
            if counts.get("total") and event.get("status") == "Downloading":
                layers[event["id"]] = (counts["current"], counts["total"])
            elif event.get("status") == "Download complete" and event["id"] in layers:
                layers[event["id"]] = (layers[event["id"]][1],) * 2
            here, whole = (sum(column) for column in zip(*layers.values(), strict=True)) if layers else (0, 0)
            progress.show(Phase(PULLING, here / whole if whole else None, tag))
    except (APIError, DockerException) as error:
        raise failed(f"pulling {tag} failed: {str(error).splitlines()[0]}", *_PULL_HINT) from error


_PULL_HINT = ("log in with docker login, or build it here with scripts/berth build", Exit.FAILED)


def volume_holds(volume: str, image: str, folder: Path, client: "DockerClient | None" = None) -> bool:
    """Whether a hub cache in a volume holds a model; only a container can look into one."""
    from docker.errors import ContainerError, DockerException, NotFound

    client = client or dockers.client()
    try:
        client.volumes.get(volume)
        said = client.containers.run(
            image,
            entrypoint=["find", "-L", f"/cache/{folder}/snapshots", "-type", "f"],
            command=[],
            volumes={volume: {"bind": "/cache", "mode": "ro"}},
            network_mode="none",
            remove=True,
        )
    except (ContainerError, NotFound, DockerException):
        return False
    return any(line.endswith((".safetensors", ".bin", ".gguf", ".pt")) for line in said.decode().splitlines())
