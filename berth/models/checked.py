"""A file that is hashed while it is written, so that checking it costs no second reading."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BLOCK = 4 << 20  # bytes read at a time: large enough that hashing, not Python, takes the time


@dataclass(frozen=True)
class Expected:
    """What a file must be: its bytes and its name in the hub's cache.

    The name is its SHA-256 (64 hexadecimal digits, large files), or git's SHA-1 of it (40 digits).
    """

    name: str
    size: int

    def hasher(self) -> "hashlib._Hash":
        """A fresh hash of the right kind."""
        return hasher(self.name, self.size)


def hasher(name: str, size: int) -> "hashlib._Hash":
    """The hash by which the hub names a file of `size` bytes, told by the length of the name."""
    if len(name) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def digest(path: Path, name: str, moved: Callable[[int], None] = lambda _: None) -> str:
    """What a file's name in the hub's cache should be, judged by its contents."""
    found = hasher(name, path.stat().st_size)
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            found.update(block)
            moved(len(block))
    return found.hexdigest()


class Checked:
    """An open file that continues at its end and knows its own hash."""

    def __init__(self, file: BinaryIO, expected: Expected, moved: Callable[[int], None]) -> None:
        """Read what is there already. `moved` is told of bytes written; it may raise to stop the writing."""
        self._file = file
        self._expected = expected
        self._moved = moved
        self.size = 0
        self._begin()
        if os.fstat(file.fileno()).st_size > expected.size:
            file.truncate(0)
        file.seek(0)
        while block := file.read(BLOCK):
            self._count(block)

    def _begin(self) -> None:
        self._hash = self._expected.hasher()
        self.size = 0

    def _count(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)

    def write(self, data: bytes) -> int:
        """Append."""
        self._moved(len(data))
        self._file.write(data)
        self._count(data)
        return len(data)

    def begin_again(self) -> None:
        """Forget what there is."""
        self._moved(-self.size)
        self._file.truncate(0)
        self._begin()

    @property
    def right(self) -> bool:
        """Whether the file is what it must be."""
        return self.size == self._expected.size and self._hash.hexdigest() == self._expected.name
