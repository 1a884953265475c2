"""How far a batch is, told from its journals as they grow: what is done, how fast, and when it ends."""

import time
from pathlib import Path

from berth.slurm.durations import words
from engine import journal
from engine.phases import Phase

ANSWERING = "answering"


class Count:
    """Counts the entries of a folder; reads only what has come since."""

    def __init__(self, folder: Path, total: int) -> None:
        self._folder, self.total = folder, total
        self._offsets: dict[Path, int] = {}
        self.done = len(journal.places(folder))
        for path in folder.glob("answers-*.jsonl"):
            self._offsets[path] = path.stat().st_size
        self._before, self._since = self.done, 0.0

    def look(self, now: float | None = None) -> Phase | None:
        """The phase to show; None before this run has an answer. `now` is a monotonic time in seconds."""
        now = time.monotonic() if now is None else now
        for path in self._folder.glob("answers-*.jsonl"):
            self._read(path)
        self.done = min(self.done, self.total)
        if self.done == self._before:
            return None
        if not self._since:
            self._since, self._before = now, self.done - 1
        return Phase(ANSWERING, self.done / self.total, self._detail(now))

    def _read(self, path: Path) -> None:
        with open(path, "rb") as file:
            file.seek(self._offsets.get(path, 0))
            new = file.read()
        self._offsets[path] = self._offsets.get(path, 0) + len(new)
        self.done += new.count(b"\n")

    def _detail(self, now: float) -> str:
        said = f"{self.done:,} of {self.total:,}"
        took, here = now - self._since, self.done - self._before
        if took < 1 or here < 2:
            return said
        rate = here / took
        return f"{said}, {rate:.1f} a second, {words(int((self.total - self.done) / rate))} left"
