"""A fetched model in one tar file, laid out so that unpacked it is a hub's cache again.

NAME/models--org--name/blobs/HASH
                       refs/main
                       snapshots/COMMIT/FILE -> ../../blobs/HASH
NAME/version.txt
"""

import io
import os
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from berth.errors import Exit, failed
from berth.models import version
from berth.models.checked import BLOCK, hasher
from berth.models.fetch import Fetched
from berth.models.transfer import Transfer, must_have_room
from berth.models.version import Version

ENDINGS = (".tar", ".tar.gz", ".tgz")


def place(name: str) -> Path:
    """The file for `--tar NAME`: `.tar` unless the name has an ending; with `.gz` it is compressed, which is slow."""
    path = Path(name).expanduser()
    if not path.name or path.name.startswith("."):
        raise failed(f"--tar {name}: not a file's name", "for instance --tar org--name", Exit.BAD_SETTING)
    return path if path.name.endswith(ENDINGS) else path.with_name(f"{path.name}.tar")


def pack(fetched: Fetched, path: Path, transfer: Transfer) -> Path:
    """Write the tar file. It appears whole, and the same model gives the same bytes. Raises BerthError."""
    work = path.with_name(f".{path.name}.incomplete")
    must_have_room(path.absolute().parent, fetched.bytes, path.name)
    gzipped = not path.name.endswith(".tar")
    before = transfer.moved
    try:
        with work.open("wb") as raw, tarfile.open(fileobj=raw, mode="w:gz" if gzipped else "w") as tar:
            fill = partial(_fill, tar, path, fetched, transfer)
            transfer.run(f"packing {path.name}", [fill], fetched.bytes, workers=1)
        work.replace(path)
    except OSError as error:
        raise failed(f"cannot write {work}: {error.strerror or error}", "make room, or name another folder") from error
    finally:
        work.unlink(missing_ok=True)
        transfer.moved = before
    return path


def _fill(tar: tarfile.TarFile, path: Path, fetched: Fetched, transfer: Transfer) -> None:
    top = path.name
    for ending in ENDINGS:
        top = top.removesuffix(ending)
    repository = fetched.repository
    inside = f"{top}/{repository.folder.name}"
    for blob, size in sorted({file.blob: file.size for file in fetched.files}.items()):
        with (repository.blobs / blob).open("rb") as file:
            tar.addfile(_entry(f"{inside}/blobs/{blob}", size), _Counted(file, transfer))
    # Unpacked somewhere without a network, it is asked for as main.
    for revision in sorted({"main", fetched.revision} - {fetched.commit}):
        _text(tar, f"{inside}/refs/{revision}", fetched.commit)
    for entry in fetched.files:
        link = _entry(f"{inside}/snapshots/{fetched.commit}/{entry.path}", 0)
        link.type = tarfile.SYMTYPE
        folder = Path("snapshots") / fetched.commit / entry.path
        link.linkname = os.path.relpath(Path("blobs") / entry.blob, folder.parent)
        tar.addfile(link)
    _text(tar, f"{top}/{version.FILE}", Version(repository.model, fetched.commit, fetched.revision).text())


class _Counted:
    """A file that tells how far it is read."""

    def __init__(self, file: io.BufferedReader, transfer: Transfer) -> None:
        self._file, self._transfer = file, transfer

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._transfer.count(len(data))
        return data


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """Nobody's file of no time, so that the tar depends on the model alone."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o644, 0
    return entry


def _text(tar: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    tar.addfile(_entry(name, len(data)), io.BytesIO(data))


def wrong(path: Path, transfer: Transfer) -> Iterator[str]:
    """What is wrong with a packed model: contents that do not match their names, links to nothing, no version."""
    blobs: set[str] = set()
    links: dict[str, str] = {}
    said: version.Version | None = None
    try:
        with tarfile.open(path) as tar:
            for entry in tar:
                file = tar.extractfile(entry) if entry.isfile() else None
                if entry.issym():
                    links[entry.name] = os.path.basename(entry.linkname)
                elif file is not None and "/blobs/" in entry.name:
                    found, name = hasher(name := os.path.basename(entry.name), entry.size), name
                    while block := file.read(BLOCK):
                        found.update(block)
                        transfer.count(len(block))
                    blobs.add(name)
                    if found.hexdigest() != name:
                        yield f"{entry.name}: the checksum is wrong"
                elif file is not None and os.path.basename(entry.name) == version.FILE:
                    said = version.read(file.read(BLOCK).decode(errors="replace"))
    except (tarfile.TarError, OSError, EOFError) as error:
        yield f"{path.name} cannot be read to its end: {error}"
        return
    for name, blob in sorted(links.items()):
        if blob not in blobs:
            yield f"{name}: its contents are missing"
    if said is None:
        yield f"{version.FILE} is missing, or says no model"
    elif not any(f"/snapshots/{said.commit}/" in name for name in links):
        yield f"{version.FILE} says commit {said.commit}, which is not in it"
