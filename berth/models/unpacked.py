"""What the launcher has unpacked beside the hub's cache for models that come in one file, and brought from a store."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from berth.slurm.gc import Leftover


def leftovers(home: Path, before: float) -> Iterator[Leftover]:
    """Folders and files that nobody has read or written since `before`; the next start makes them again."""
    for place in sorted(home.glob("*")):
        if place.name.endswith(".lock") or _touched(place) >= before:
            continue
        why = "a start that was cut off left it" if place.name.startswith(".") else "unread for long"
        with _alone(home, place) as alone:
            if alone:
                yield Leftover("unpacked", str(place), sum(file.stat().st_size for file in _files(place)), why)


def remove(place: Path) -> None:
    """Delete one of them, unless a start is at it."""
    with _alone(place.parent, place) as alone:
        if alone and place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        elif alone:
            place.unlink(missing_ok=True)


def _files(place: Path) -> list[Path]:
    return [file for file in (place, *place.rglob("*")) if file.is_file() and not file.is_symlink()]


def _touched(place: Path) -> float:
    """When anything in it was last written or, as far as the file system notes that, read."""
    return max([place.stat().st_mtime, *(file.stat().st_atime for file in _files(place))])


@contextmanager
def _alone(home: Path, place: Path) -> Iterator[bool]:
    """Whether no engine is unpacking it: the launcher holds a lock with the folder's name."""
    lock = home / f".{place.name}.lock"
    if not lock.exists():
        yield True
        return
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
