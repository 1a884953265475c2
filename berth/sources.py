"""Where an image for Apptainer comes from: a Docker Engine, the output of `docker save`, or a registry."""

import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berth import __version__
from berth.errors import BerthError, Exit, failed
from berth.host import dockers

FORMS = "docker-daemon:NAME:TAG, docker-archive:FILE or docker://REPOSITORY@sha256:DIGEST"
_PLATFORMS = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Source:
    """An image, named as Apptainer names it; `digest` tells one build of it from another.

    `bytes` is its size unpacked, 0 where that is not known; so are labels and architecture of an image in a registry.
    """

    bootstrap: str
    place: str
    digest: str = ""
    bytes: int = 0
    architecture: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.bootstrap}:{'//' if self.bootstrap == 'docker' else ''}{self.place}"


def default(device: str) -> str:
    """The image that `berth build` makes here: the same names and defaults as in Compose."""
    from berth import deployment

    asked = deployment.resolve([], device)
    name = f"{asked.value('BERTH_REGISTRY', 'berth')}/vllm-{device}:{asked.value('BERTH_VERSION', __version__)}"
    return f"docker-daemon:{name}"


def find(text: str) -> Source:
    """Look an image up. Raises BerthError: exit code 2 for another form, 3 where there is no such image."""
    kind, _, place = text.partition(":")
    if kind == "docker-daemon" and re.fullmatch(r"[^\s:]+(:\d+/[^\s:]+)?:[\w.-]+", place):
        return _in_engine(place)
    if kind == "docker-archive" and place:
        return _in_file(Path(place).absolute())
    if kind == "docker" and re.fullmatch(r"//[^\s@]+@sha256:[0-9a-f]{64}", place):
        return Source("docker", place.removeprefix("//"), place.partition("@")[2])
    if kind == "docker":
        raise failed(
            f"--from {text}: a tag may move, so an image in a registry is named by its digest",
            f"as {FORMS.split(' or ')[1]}",
            Exit.BAD_SETTING,
        )
    raise failed(f"--from {text}: no such source", f"one of {FORMS}", Exit.BAD_SETTING)


def _in_engine(name: str) -> Source:
    from docker.errors import DockerException, ImageNotFound

    missing = Exit.MISSING_PREREQUISITE
    try:
        found: dict[str, Any] = dockers.client().images.get(name).attrs
    except dockers.Unreachable as error:
        hint = "start it; or where there is none: docker save on another machine, and --from docker-archive:FILE here"
        raise failed(f"no Docker Engine answers ({error})", hint, missing) from error
    except ImageNotFound:
        raise failed(f"the Docker Engine has no image {name}", "build it: scripts/berth build", missing) from None
    except DockerException as error:
        raise failed(f"{name}: {str(error).splitlines()[0]}", f"check the name; {FORMS}") from error
    config = found.get("Config") or {}
    return Source(
        "docker-daemon",
        name,
        found["Id"],
        found.get("Size", 0),
        found.get("Architecture", ""),
        config.get("Labels") or {},
    )


def _in_file(file: Path) -> Source:
    try:
        with tarfile.open(file) as archive:
            images: list[dict[str, Any]] = _member(archive, "manifest.json")
            if len(images) != 1:
                raise failed(
                    f"{file} holds {len(images)} images",
                    "save one of them: docker save NAME:TAG -o FILE",
                    Exit.BAD_SETTING,
                )
            name = images[0]["Config"]
            config: dict[str, Any] = _member(archive, name)
            size = sum(archive.getmember(layer).size for layer in images[0]["Layers"])
    except FileNotFoundError:
        raise failed(
            f"there is no file {file}",
            "make it where the image is: docker save NAME:TAG -o FILE",
            Exit.MISSING_PREREQUISITE,
        ) from None
    except (tarfile.TarError, KeyError, ValueError, TypeError, OSError) as error:
        raise _no_archive(file, error) from error
    digest = "sha256:" + name.rpartition("/")[2].removesuffix(".json")
    labels = (config.get("config") or {}).get("Labels") or {}
    return Source("docker-archive", str(file), digest, size, config.get("architecture", ""), labels)


def _member(archive: tarfile.TarFile, name: str) -> Any:
    content = archive.extractfile(name)
    if content is None:
        raise KeyError(name)
    return json.load(content)


def _no_archive(file: Path, error: Exception) -> BerthError:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, tarfile.TarError):
        return failed(f"{file} cannot be read: {error.strerror}", "check its permissions", Exit.BAD_SETTING)
    return failed(
        f"{file} is not what docker save writes",
        "unpack it if it is compressed (zstd -d); save one image: docker save NAME:TAG -o FILE",
        Exit.BAD_SETTING,
    )


def check(source: Source, device: str, machine: str) -> None:
    """Whether it can become the device's image on a machine of that kind (`uname -m`). Raises BerthError (code 2)."""
    own = _PLATFORMS.get(machine, machine)
    if source.architecture and source.architecture != own:
        raise failed(
            f"{source} is for {source.architecture} processors, and this machine has {own}",
            f"make the image on a machine with {source.architecture}, or name an image for {own}",
            Exit.BAD_SETTING,
        )
    if source.bootstrap != "docker":
        check_labels(source.labels, str(source), device)


def check_labels(labels: Mapping[str, str], what: str, device: str) -> None:
    """Whether labels are those of the device's engine image. Raises BerthError (exit code 2)."""
    found = labels.get("berth.device")
    if found is None:
        raise failed(
            f"{what} is no engine image of Berth: it has no label berth.device",
            f"build one: scripts/berth build --device {device}",
            Exit.BAD_SETTING,
        )
    if found != device:
        raise failed(
            f"{what} is an image for {found}, not for {device}",
            f"say scripts/berth sif {found}, or name another image with --from",
            Exit.BAD_SETTING,
        )
