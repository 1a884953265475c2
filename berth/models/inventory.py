"""`berth models` and `berth gc --models`: what is in the hub's cache and beside it, and what of it nobody needs."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from berth.models import transfer, unpacked
from berth.models.hubcache import INCOMPLETE, Repository, cache_of
from berth.slurm.gc import DAY, Leftover, Swept
from engine import packed

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, HFCacheInfo

HEADS = ("model", "revision", "size", "files", "used", "path")


@dataclass(frozen=True)
class Model:
    """A model at one commit. `used` is when a file of it was last read, as far as the file system notes that."""

    name: str
    commit: str
    refs: tuple[str, ...]
    bytes: int
    files: int
    used: float
    path: str
    unfinished: bool

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {**vars(self), "refs": list(self.refs)}

    def row(self, now: float) -> tuple[str, ...]:
        """What a person reads."""
        revision = f"{self.commit[:7]} ({', '.join(self.refs)})" if self.refs else self.commit[:7]
        size = transfer.size(self.bytes) + (" and a download that has not ended" if self.unfinished else "")
        return (self.name, revision, size, str(self.files), _ago(now - self.used), self.path)


def models(cache: Path) -> list[Model]:
    """What is in the cache, by name."""
    found = []
    for repo in _repositories(cache):
        unfinished = any((repo.repo_path / "blobs").glob(f"*{INCOMPLETE}"))
        for revision in repo.revisions:
            used = max((file.blob_last_accessed for file in revision.files), default=repo.last_modified)
            found.append(
                Model(
                    repo.repo_id,
                    revision.commit_hash,
                    tuple(sorted(revision.refs)),
                    revision.size_on_disk,
                    len(revision.files),
                    used,
                    str(revision.snapshot_path),
                    unfinished,
                )
            )
    return sorted(found, key=lambda model: (model.name, -model.used))


def gc(home: Path | None, older_than: str, delete: bool) -> Swept:
    """The verb's work. Raises BerthError (exit code 2) for a time that is none."""
    from berth.models.environment import environment
    from berth.slurm import durations

    return sweep(cache_of(home, environment()), durations.parse(older_than, "--older-than"), delete)


def sweep(cache: Path, older_than_s: float = 7 * DAY, delete: bool = False) -> Swept:
    """Find what nobody needs: downloads given up, contents without a name, commits that a newer one replaced, and what
    was unpacked for a start and not read since.

    Nothing is touched that was read or written within `older_than_s`, nor a model that somebody is fetching.
    """
    now = time.time()
    found, stale = [], []
    for repo in _repositories(cache):
        if _busy(Repository(cache, repo.repo_id)):
            continue
        found += list(_loose(repo, now - older_than_s))
        for leftover, commit in _replaced(repo, now - older_than_s):
            found.append(leftover)
            stale.append(commit)
    found += unpacked.leftovers(cache.parent / packed.HOME, now - older_than_s)
    if delete:
        for each in found:
            if each.kind == "unpacked":
                unpacked.remove(Path(each.where))
            elif each.kind != "revision":
                Path(each.where).unlink(missing_ok=True)
        if stale:
            _scan(cache).delete_revisions(*stale).execute()
    return Swept(tuple(found), delete)


def _loose(repo: "CachedRepoInfo", before: float) -> Iterator[Leftover]:
    used = {file.blob_path for revision in repo.revisions for file in revision.files}
    for blob in sorted((repo.repo_path / "blobs").glob("*")):
        stat = blob.stat()
        if stat.st_mtime >= before:
            continue
        if blob.name.endswith(INCOMPLETE):
            yield Leftover("download", str(blob), stat.st_size, "has not ended, unchanged for long")
        elif blob not in used:
            yield Leftover("blob", str(blob), stat.st_size, "no revision has it")


def _replaced(repo: "CachedRepoInfo", before: float) -> Iterator[tuple[Leftover, str]]:
    """Commits that no branch or tag means any more, where another one of the same model is meant."""
    named = [revision for revision in repo.revisions if revision.refs]
    kept = {file.blob_path for revision in named for file in revision.files}
    for revision in sorted(repo.revisions, key=lambda each: each.commit_hash):
        used = max((file.blob_last_accessed for file in revision.files), default=revision.last_modified)
        if named and not revision.refs and max(used, revision.last_modified) < before:
            freed = sum({f.blob_path: f.size_on_disk for f in revision.files if f.blob_path not in kept}.values())
            yield (
                Leftover("revision", str(revision.snapshot_path), freed, "replaced by a newer one"),
                revision.commit_hash,
            )


def _busy(repository: Repository) -> bool:
    from filelock import FileLock, Timeout

    if not repository.lock.exists():
        return False
    try:
        with FileLock(repository.lock).acquire(timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _repositories(cache: Path) -> list["CachedRepoInfo"]:
    if not cache.is_dir():
        return []
    return sorted((repo for repo in _scan(cache).repos if repo.repo_type == "model"), key=lambda repo: repo.repo_id)


def _scan(cache: Path) -> "HFCacheInfo":
    from huggingface_hub import scan_cache_dir

    return scan_cache_dir(cache)


def _ago(seconds: float) -> str:
    from berth.slurm.durations import words

    return "now" if seconds < 60 else f"{words(seconds)} ago"
