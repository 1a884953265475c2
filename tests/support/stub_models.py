"""Folders as repositories of a hub, with what a hub knows of their files."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

LARGE = (".safetensors", ".bin", ".gguf", ".pt")  # kept as LFS files: named by SHA-256, served from elsewhere


@dataclass(frozen=True)
class HubFile:
    """A file, and the sums by which a hub names it: git's, and SHA-256 where it is kept as LFS."""

    place: Path
    size: int
    sha1: str
    sha256: str | None


@dataclass
class Model:
    """A folder as a repository. Its commit follows from what is in it."""

    folder: Path
    files: dict[str, HubFile] = field(default_factory=dict)
    commit: str = ""

    def __post_init__(self) -> None:
        for place in sorted(self.folder.rglob("*")):
            if place.is_file():
                self.files[str(place.relative_to(self.folder))] = _file(place)
        self.commit = hashlib.sha1(repr(sorted((n, f.sha1) for n, f in self.files.items())).encode()).hexdigest()


def _file(place: Path) -> HubFile:
    size = place.stat().st_size
    git, sha256 = hashlib.sha1(b"blob %d\0" % size), hashlib.sha256()
    with place.open("rb") as file:
        while block := file.read(1 << 22):
            git.update(block)
            sha256.update(block)
    return HubFile(place, size, git.hexdigest(), sha256.hexdigest() if place.name.endswith(LARGE) else None)
