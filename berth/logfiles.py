"""Reads log files as they grow; carriage returns of progress bars count as line ends."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

POLL_S = 0.2
_BLOCK = 1 << 16
_LINE_END = re.compile(r"[\r\n]+")


class Growing:
    """One file, read on from where the last read ended; it may not exist yet, and may be replaced by a shorter one."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path, self.offset, self._rest = path, offset, b""

    def lines(self) -> list[str]:
        """The whole lines that have come since the last call."""
        try:
            if self.path.stat().st_size < self.offset:
                self.offset, self._rest = 0, b""
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                new = file.read()
        except OSError:
            return []
        self.offset += len(new)
        cut = max((self._rest + new).rfind(b"\n"), (self._rest + new).rfind(b"\r")) + 1
        whole, self._rest = (self._rest + new)[:cut], (self._rest + new)[cut:]
        return split(whole.decode(errors="replace"))


def split(text: str) -> list[str]:
    """Lines that say something."""
    return [line for line in _LINE_END.split(text) if line.strip()]


def tail(path: Path, count: int | None) -> tuple[list[str], int]:
    """The last `count` lines (None: all), and the offset at which they end."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            start = 0 if count is None else max(0, end - max(_BLOCK, count * 400))
            file.seek(start)
            text = file.read(end - start).decode(errors="replace")
    except OSError:
        return [], 0
    lines = split(text)
    return (lines if count is None else lines[-count:] if count else []), end


def follow(files: Mapping[str, Path], count: int | None, keep_on: bool) -> Iterator[tuple[str, str]]:
    """Yield (name, line): the last `count` lines of each file, then, with `keep_on`, lines as they come, for ever."""
    growing = {}
    for name, path in files.items():
        lines, end = tail(path, count)
        growing[name] = Growing(path, end)
        yield from ((name, line) for line in lines)
    while keep_on:
        came = [(name, line) for name, file in growing.items() for line in file.lines()]
        yield from came
        if not came:
            time.sleep(POLL_S)
