"""Reads a log file as it grows; carriage returns of progress bars count as line ends."""

import re
from pathlib import Path

_BLOCK = 4 << 20  # bytes at most for one call, and so in memory
_LONGEST = 1 << 16  # bytes kept of a line that does not end
_LINE_END = re.compile(r"[\r\n]+")


class Growing:
    """One file, read on from where the last read ended; it may not exist yet, and may be replaced by a shorter one."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path, self.offset, self._rest = path, offset, b""

    def lines(self) -> list[str]:
        """The whole lines that have come since the last call, at most those of the next 4 MiB."""
        try:
            if self.path.stat().st_size < self.offset:
                self.offset, self._rest = 0, b""
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                new = file.read(_BLOCK)
        except OSError:
            return []
        self.offset += len(new)
        cut = max((self._rest + new).rfind(b"\n"), (self._rest + new).rfind(b"\r")) + 1
        whole, self._rest = (self._rest + new)[:cut], (self._rest + new)[cut:][:_LONGEST]
        return split(whole.decode(errors="replace"))


def split(text: str) -> list[str]:
    """Lines that say something."""
    return [line for line in _LINE_END.split(text) if line.strip()]
