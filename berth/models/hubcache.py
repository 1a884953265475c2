"""The folders of a model in the hub's cache, as huggingface_hub, and so vLLM, expects them.

HOME/hub/models--org--name/blobs/HASH
                           refs/main                   a commit
                           snapshots/COMMIT/FILE       a link to a blob
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from berth.errors import Exit, failed

INCOMPLETE = ".incomplete"
COMMIT = re.compile(r"[0-9a-f]{40}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]*")


@dataclass(frozen=True)
class HubFile:
    """A file of a model: its path in the repository, its blob's name (a hash), and its bytes."""

    path: str
    blob: str
    size: int


@dataclass(frozen=True)
class Repository:
    """One model in the hub's cache."""

    cache: Path
    model: str

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return self.cache / f"models--{self.model.replace('/', '--')}"

    @property
    def blobs(self) -> Path:
        """Where the contents lie."""
        return self.folder / "blobs"

    @property
    def lock(self) -> Path:
        """The file that who writes here holds."""
        return self.cache / ".locks" / self.folder.name / "berth.lock"

    def snapshot(self, commit: str) -> Path:
        """The folder to serve from."""
        return self.folder / "snapshots" / commit

    def commit(self, revision: str) -> str | None:
        """The commit that a branch or tag was when it was fetched; a commit that is here is itself."""
        if not REVISION.fullmatch(revision) or ".." in revision:
            return None
        try:
            return (self.folder / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return revision if self.snapshot(revision).is_dir() else None

    def missing(self, commit: str, files: Iterable[HubFile]) -> list[HubFile]:
        """The files that are not here whole, judged by their sizes."""
        snapshot = self.snapshot(commit)
        return [file for file in files if _size(snapshot / file.path) != file.size]

    def link(self, commit: str, files: Iterable[HubFile]) -> None:
        """Make the snapshot. A new one appears all at once, so nobody starts from half a model."""
        final = self.snapshot(commit)
        work = final if final.exists() else final.with_name(f".{commit}{INCOMPLETE}")
        if work != final:
            shutil.rmtree(work, ignore_errors=True)
        for file in files:
            place = work / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            target = os.path.relpath(self.blobs / file.blob, final / Path(file.path).parent)
            fresh = place.with_name(f".{place.name}{INCOMPLETE}")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(target)
            fresh.replace(place)
        if work != final:
            work.rename(final)

    def refer(self, revision: str, commit: str) -> None:
        """Let a branch or tag mean a commit."""
        if revision == commit:
            return
        ref = self.folder / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        fresh = ref.with_name(f".{ref.name}{INCOMPLETE}")
        fresh.write_text(commit, encoding="utf-8")
        fresh.replace(ref)

    def files(self, commit: str) -> Iterator[HubFile]:
        """What the snapshot holds. A link to a blob that is not there has size -1."""
        snapshot = self.snapshot(commit)
        for place in sorted(snapshot.rglob("*")):
            if place.is_symlink() or place.is_file():
                blob = os.path.basename(os.readlink(place)) if place.is_symlink() else ""
                yield HubFile(str(place.relative_to(snapshot)), blob, _size(place))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def cache_of(home: Path | None, environ: Mapping[str, str]) -> Path:
    """The cache in a folder that is meant as HF_HOME; huggingface_hub's own unless one is given."""
    from berth.host import hub

    return home.expanduser().absolute() / "hub" if home else hub.cache(environ).absolute()


def located(cache: Path, model: str, revision: str) -> tuple[Repository, str]:
    """A model that is here, and its commit. Raises BerthError (exit code 3) for one that is not."""
    repository = Repository(cache, checked_name(model))
    commit = repository.commit(revision)
    if commit is None or not repository.snapshot(commit).is_dir():
        at = "" if revision == "main" else f" --revision {revision}"
        raise failed(
            f"{model} at {revision} is not in {cache}",
            f"fetch it with: scripts/berth fetch {model}{at}; what is here: scripts/berth models",
            Exit.MISSING_PREREQUISITE,
        )
    return repository, commit


def checked_name(model: str) -> str:
    """The name of a model on the hub. Raises BerthError (exit code 2) for what can be none."""
    if not NAME.fullmatch(model) or "--" in model or ".." in model:
        raise failed(f"{model}: not a model's name", "write it as on the hub: org/name", Exit.BAD_SETTING)
    return model


@contextmanager
def as_the_parent(folder: Path) -> Iterator[None]:
    """New files may be read by the group, and written where the folder that holds them allows that."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    before = os.umask(0)
    allowed = 0o070 if place.stat().st_mode & 0o020 else 0o050
    os.umask(before & ~allowed)
    try:
        yield
    finally:
        os.umask(before)
