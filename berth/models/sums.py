"""SHA256SUMS: the checksums of a folder, in the form that `sha256sum --check` reads."""

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from berth.models.checked import BLOCK
from berth.models.transfer import Transfer

FILE = "SHA256SUMS"


def sha256(path: Path, transfer: Transfer) -> str:
    """A file's SHA-256. Raises OSError."""
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            found.update(block)
            transfer.count(len(block))
    return found.hexdigest()


def text(known: Iterable[tuple[str, str]]) -> str:
    """The file's text for pairs of path and checksum."""
    return "".join(f"{checksum}  {path}\n" for path, checksum in sorted(known))


def read(text: str) -> dict[str, str]:
    """Checksums by path; lines of another form, and paths that lead out of the folder, count for nothing."""
    found = {}
    for line in text.splitlines():
        checksum, separator, path = line.partition("  ")
        plain = not Path(path).is_absolute() and ".." not in Path(path).parts and path not in ("", ".")
        if separator and plain and len(checksum) == 64 and set(checksum) <= set("0123456789abcdef"):
            found[path] = checksum
    return found


def wrong(folder: Path, transfer: Transfer) -> tuple[list[str], int]:
    """What differs from the folder's SHA256SUMS, and how many bytes were looked at."""
    known = read((folder / FILE).read_text(encoding="utf-8", errors="replace"))
    found: list[str] = [] if known else [f"{FILE} names no file"]
    there = {path: (folder / path).stat().st_size for path in known if (folder / path).is_file()}
    found += [f"{path}: missing" for path in sorted(known.keys() - there.keys())]
    jobs = [partial(_check, folder, path, known[path], found, transfer) for path in there]
    transfer.run("checking", jobs, sum(there.values()), workers=4)
    return sorted(found), sum(there.values())


def _check(folder: Path, path: str, checksum: str, found: list[str], transfer: Transfer) -> None:
    try:
        if sha256(folder / path, transfer) != checksum:
            found.append(f"{path}: the checksum is wrong")
    except OSError as error:
        found.append(f"{path}: cannot be read ({error.strerror})")
