"""`berth fetch`: a model, into the hub's cache. What is cut off goes on later; what is wrong never arrives."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from berth.errors import Exit, failed
from berth.models import choosing, transfer
from berth.models.checked import Checked, Expected
from berth.models.hub import Hub, Listing
from berth.models.hubcache import INCOMPLETE, HubFile, Repository, as_the_parent
from berth.models.transfer import Transfer
from berth.progress import Progress
from engine.phases import Phase


class Source(Protocol):
    """Where files come from."""

    @property
    def transfer(self) -> Transfer:
        """What counts the bytes."""

    def download(self, listing: Listing, file: HubFile, out: Checked) -> None:
        """Append what of a file is still to come. Raises BerthError."""


@dataclass(frozen=True)
class Fetched:
    """What is here now. `moved` is the bytes that this run brought, in `seconds`."""

    repository: Repository
    revision: str
    commit: str
    files: tuple[HubFile, ...]
    moved: int = 0
    seconds: float = 0.0

    @property
    def path(self) -> Path:
        """The folder to serve from."""
        return self.repository.snapshot(self.commit)

    @property
    def bytes(self) -> int:
        """All its files."""
        return sum(file.size for file in self.files)

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "model": self.repository.model,
            "revision": self.revision,
            "commit": self.commit,
            "path": str(self.path),
            "files": len(self.files),
            "bytes": self.bytes,
            "bytes_fetched": self.moved,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class Plan:
    """What is to be fetched, and where to."""

    repository: Repository
    listing: Listing
    files: tuple[HubFile, ...]

    @property
    def is_done(self) -> bool:
        """Whether all of it is here."""
        here = self.repository.commit(self.listing.revision) == self.listing.commit
        return here and not self.repository.missing(self.listing.commit, self.files)

    def fetched(self, moved: int = 0, seconds: float = 0.0) -> Fetched:
        """The end of it."""
        return Fetched(self.repository, self.listing.revision, self.listing.commit, self.files, moved, seconds)

    def to_do(self) -> tuple[list[HubFile], int]:
        """The files whose contents are not here, the largest first, and the bytes of them that are."""
        blobs = self.repository.blobs
        wanted = {file.blob: file for file in self.files if _size(blobs / file.blob) != file.size}
        had = sum(min(max(0, _size(blobs / f"{each.blob}{INCOMPLETE}")), each.size) for each in wanted.values())
        return sorted(wanted.values(), key=lambda file: -file.size), had


def plan(
    hub: Hub, cache: Path, model: str, revision: str = "main", include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Plan:
    """Ask the hub what there is. Raises BerthError: also for a gated model, before its first byte."""
    return choose(hub.listing(model, revision), cache, include, exclude)


def choose(listing: Listing, cache: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Plan:
    """The files that are wanted. Raises BerthError (exit code 2) where none is."""
    paths = set(choosing.wanted((file.path for file in listing.files), include, exclude))
    files = tuple(file for file in listing.files if file.path in paths)
    if not files:
        raise failed(
            f"no file of {listing.model} is wanted by --include and --exclude",
            "its files are: " + ", ".join(file.path for file in listing.files[:6]),
            Exit.BAD_SETTING,
        )
    return Plan(Repository(cache, listing.model), listing, files)


def run(source: Source, planned: Plan, workers: int = transfer.WORKERS) -> Fetched:
    """Bring what is missing. Raises BerthError; whatever happens, what has arrived stays for the next run."""
    if planned.is_done:
        return planned.fetched()  # nothing to write, so a folder that only others may write to is good enough
    began, moving = time.monotonic(), source.transfer
    with writing(planned.repository, moving.progress):
        files, had = planned.to_do()
        total = sum(file.size for file in files)
        transfer.must_have_room(planned.repository.blobs, total - had, planned.repository.model)
        jobs = [partial(_bring, source, planned, file) for file in files]
        moving.run("fetching", jobs, total, had, workers)
        planned.repository.link(planned.listing.commit, planned.files)
        planned.repository.refer(planned.listing.revision, planned.listing.commit)
    return planned.fetched(max(0, moving.moved), time.monotonic() - began)


@contextmanager
def writing(repository: Repository, progress: Progress) -> Iterator[None]:
    """Be the only one who writes this model here. Waits for whoever is at it. Raises BerthError."""
    from filelock import FileLock, Timeout

    with as_the_parent(repository.cache):
        try:
            for folder in (repository.lock.parent, repository.blobs, repository.folder / "refs"):
                folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(repository.lock, mode=0o666)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                progress.show(Phase("waiting", detail=f"somebody else is writing {repository.model}"))
                lock.acquire()
        except OSError as error:
            raise failed(
                f"cannot write to {repository.folder}: {error.strerror or error}",
                "ask its owner to fetch the model, or fetch it elsewhere with --to DIR",
                Exit.MISSING_PREREQUISITE,
            ) from error
        try:
            yield
        finally:
            lock.release()


def _bring(source: Source, planned: Plan, file: HubFile) -> None:
    """Fetch one file's contents under its hash. What arrives wrong is fetched once more from its first byte."""
    target = planned.repository.blobs / file.blob
    unfinished = target.with_name(f"{file.blob}{INCOMPLETE}")
    for _ in range(2):
        try:
            with unfinished.open("a+b") as out:
                checked = Checked(out, Expected(file.blob, file.size), source.transfer.count)
                source.download(planned.listing, file, checked)
            if checked.right:
                unfinished.replace(target)
                return
        except OSError as error:
            raise failed(
                f"cannot write {unfinished}: {error.strerror or error}",
                "make room or mend the disk, and run the same command again; it goes on where it stopped",
            ) from error
        unfinished.unlink()
        source.transfer.count(-checked.size)
        source.transfer.progress.say(f"{file.path} has a wrong checksum; fetching it again")
    raise failed(
        f"{file.path} of {planned.repository.model} arrived twice with a wrong checksum",
        "a proxy or mirror on the way changes it; try without, or another HF_ENDPOINT",
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
