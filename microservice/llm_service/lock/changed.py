"""Files that may be replaced while the service runs: whether one of them has changed, looked at once in a while."""

import os
import time
from pathlib import Path

LOOK_SECONDS = 1.0  # a changed file counts after at most this long

_Mark = tuple[int, ...] | None


class Files:
    """Some files as they were when they were last looked at."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen = self._marks()
        self._looked_at = time.monotonic()

    def changed(self) -> bool:
        """Say whether one of them changed since this was last asked; at most every LOOK_SECONDS they are looked at."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        before, self._seen = self._seen, self._marks()
        return self._seen != before

    def _marks(self) -> tuple[_Mark, ...]:
        return tuple(_mark(path) for path in self._paths)


def _mark(path: Path) -> _Mark:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
