"""Shows how far Apptainer is with an image: its step, which it says, and the size of its file, which it does not."""

import threading
import time
from pathlib import Path

from berth.progress import Progress
from engine.phases import Phase

FETCHING, UNPACKING, COMPRESSING = "fetching the image", "unpacking it", "compressing it"
_STEPS = {"Fetching": FETCHING, "Extracting": UNPACKING, "Creating SIF": COMPRESSING}


class Watch:
    """Looks twice a second until its `with` block ends. `part` is how much of `whole` bytes compression leaves."""

    def __init__(self, scratch: Path, target: Path, whole: int, part: float, progress: Progress) -> None:
        self._scratch, self._target, self._progress = scratch, target, progress
        self._whole, self._expected = whole, int(whole * part)
        self._step = FETCHING
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def heard(self, line: str) -> None:
        """A line of Apptainer's."""
        self._step = next((step for word, step in _STEPS.items() if word in line), self._step)

    def _look(self) -> None:
        while not self._over.wait(0.5):
            self._progress.show(self._phase())

    def _phase(self) -> Phase:
        elapsed = f"{time.monotonic() - self._began:.0f} s"
        if self._step != COMPRESSING:
            of = f"{self._whole / 1e6:,.0f} MB, " if self._whole else ""
            return Phase(self._step, None, f"{of}{elapsed}")
        written = sum(_size(path) for path in [*self._scratch.glob("bundle-temp-*/squashfs-*"), self._target])
        if not self._expected:
            return Phase(self._step, None, f"{written / 1e6:,.0f} MB, {elapsed}")
        about = f"{written / 1e6:,.0f} of about {self._expected / 1e6:,.0f} MB, {elapsed}"
        return Phase(self._step, min(written / self._expected, 1.0), about)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # renamed or deleted meanwhile
        return 0
