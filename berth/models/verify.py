"""`berth verify`: whether what is here is what the hub had. No network: names in the cache are checksums."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from berth.models import sums, tarball
from berth.models.checked import digest
from berth.models.hubcache import INCOMPLETE, HubFile, Repository, located
from berth.models.transfer import Transfer

_WORKERS = 4  # a disk's readers; hashing runs beside each other


@dataclass(frozen=True)
class Verdict:
    """What was looked at, how many bytes, and what is wrong with it."""

    what: str
    bytes: int
    wrong: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {"what": self.what, "ok": not self.wrong, "bytes": self.bytes, "wrong": list(self.wrong)}


def run(what: str, revision: str, cache: Path, transfer: Transfer) -> Verdict:
    """Check a model of the cache, a tar file, or a folder with SHA256SUMS. Raises BerthError for what is not here."""
    path = Path(what).expanduser()
    if path.is_file():
        return _tar(path, transfer)
    if path.is_dir() and (path / sums.FILE).is_file():
        wrong, size = sums.wrong(path, transfer)
        return Verdict(str(path), size, tuple(wrong))
    repository, commit = located(cache, what, revision)
    return _snapshot(repository, commit, transfer)


def _tar(path: Path, transfer: Transfer) -> Verdict:
    found: list[str] = []
    size = path.stat().st_size
    transfer.run("checking", [lambda: found.extend(tarball.wrong(path, transfer))], size, workers=1)
    return Verdict(str(path), size, tuple(found))


def _snapshot(repository: Repository, commit: str, transfer: Transfer) -> Verdict:
    files = list(repository.files(commit))
    found = [f"{file.path}: its contents are missing" for file in files if file.size < 0]
    found += [f"{name}: the index names it, and it is not here" for name in missing_shards(repository, commit, files)]
    there = {file.blob: file for file in files if file.size >= 0 and file.blob}
    total = sum(file.size for file in there.values())
    jobs = [partial(_check, repository, file, found, transfer) for file in there.values()]
    transfer.run("checking", jobs, total, workers=_WORKERS)
    if any(repository.blobs.glob(f"*{INCOMPLETE}")):
        found.append("a download of this model has not ended; the same berth fetch goes on with it")
    return Verdict(f"{repository.model} {commit}", total, tuple(sorted(found)))


def _check(repository: Repository, file: HubFile, found: list[str], transfer: Transfer) -> None:
    blob = repository.blobs / file.blob
    try:
        if digest(blob, file.blob, transfer.count) != file.blob:
            found.append(f"{file.path}: the checksum is wrong; delete {blob} and fetch it again")
    except OSError as error:
        found.append(f"{file.path}: cannot be read ({error.strerror})")


def missing_shards(repository: Repository, commit: str, files: Iterable[HubFile]) -> list[str]:
    """Weights that an index of safetensors names and that the snapshot lacks."""
    here = {file.path for file in files}
    wanted: set[str] = set()
    for path in here:
        if path.endswith(".safetensors.index.json"):
            try:
                index = json.loads((repository.snapshot(commit) / path).read_text(encoding="utf-8"))
                folder = Path(path).parent
                wanted |= {str(folder / str(name)) for name in dict(index["weight_map"]).values()}
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return sorted(wanted - here)
