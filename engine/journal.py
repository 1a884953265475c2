"""The folder of a batch: its requests, and what has been answered so far, written down line by line.

`input.jsonl` is a copy of what was asked; a request is known by its line's number, counted from 0. Each process that
answers some of them appends to a journal of its own, so a kill costs only the requests that were being answered.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

INPUT = "input.jsonl"
_JOURNALS = "answers-*.jsonl"


class InUse(Exception):
    """Another process writes this journal."""


@dataclass(frozen=True)
class Share:
    """Which requests a process answers: those whose number leaves `part` when divided by `of`."""

    part: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read `0/4`. Raises ValueError for anything else."""
        part, _, of = text.partition("/")
        share = cls(int(part), int(of))
        if not 0 <= share.part < share.of:
            raise ValueError(text)
        return share

    def has(self, line: int) -> bool:
        """Whether the request of that number belongs to it."""
        return line % self.of == self.part


@dataclass(frozen=True)
class Entry:
    """One request that is done: its answer in OpenAI's batch form, or why there is none."""

    line: int
    failed: bool
    output: dict[str, Any]


def journal(folder: Path, name: str) -> Path:
    """Where one process writes down what it has answered."""
    return folder / f"answers-{name}.jsonl"


def requests(folder: Path) -> Iterator[tuple[int, str]]:
    """Every request with its number; empty lines are none."""
    with open(folder / INPUT, "rb") as file:
        for number, raw in enumerate(file):
            if raw.strip():
                yield number, raw.decode(errors="replace")


def places(folder: Path) -> dict[int, tuple[Path, int]]:
    """Where each request's entry stands: its journal, and the offset there in bytes. The first one counts.

    What was torn by a kill, or is still being written, is no entry.
    """
    found: dict[int, tuple[Path, int]] = {}
    for path in sorted(folder.glob(_JOURNALS)):
        offset = 0
        with open(path, "rb") as file:
            for text in file:
                if (entry := _parsed(text)) is not None:
                    found.setdefault(entry.line, (path, offset))
                offset += len(text)
    return found


def entries(found: dict[int, tuple[Path, int]]) -> Iterator[Entry]:
    """The entries that `places` found, in the order of their requests."""
    files: dict[Path, Any] = {}
    try:
        for _, (path, offset) in sorted(found.items()):
            file = files.setdefault(path, None) or open(path, "rb")  # noqa: SIM115 - closed below
            files[path] = file
            file.seek(offset)
            entry = _parsed(file.readline())
            assert entry is not None
            yield entry
    finally:
        for file in files.values():
            file.close()


def _parsed(text: bytes) -> Entry | None:
    if not text.endswith(b"\n"):
        return None
    try:
        return Entry(**json.loads(text))
    except (ValueError, TypeError):
        return None


def row(data: Any) -> str:
    """One line of JSON, readable in every language; escaped throughout where half a character cannot be written."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    with contextlib.suppress(UnicodeEncodeError):
        text.encode()
        return text + "\n"
    return json.dumps(data) + "\n"


class Writer:
    """One journal, held by this process alone for as long as it lives. Raises InUse, OSError."""

    def __init__(self, path: Path) -> None:
        _close_torn_line(path)
        self._file: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the process
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUse(str(path)) from error
        except OSError:  # a file system without locks
            pass

    def add(self, entry: Entry) -> None:
        """Write an entry down; from here on a kill does not lose it."""
        self._file.write(row(vars(entry)))
        self._file.flush()

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


def _close_torn_line(path: Path) -> None:
    """End a line that a kill has cut off, so that the next one stands by itself."""
    if path.exists() and path.stat().st_size:
        with open(path, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
