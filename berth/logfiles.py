"""The ends of log files, and what is added to them."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from engine.growing import Growing, split

POLL_S = 0.2
_BLOCK = 1 << 16


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
