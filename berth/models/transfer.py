"""Several files at a time: counted, shown, and stopped together."""

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from berth.errors import Exit, failed
from berth.progress import Progress
from engine.phases import Phase

WORKERS = 8  # files at a time; huggingface_hub's own number
_SHOW_EVERY_S = 0.5
_KEEP_FREE = 64 << 20  # bytes that stay free on the disk: links, logs, other people


class Stopped(Exception):
    """The work was given up."""


class Transfer:
    """Bytes that move, counted by several threads. One for each command."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.moved = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def count(self, size: int) -> None:
        """Count bytes that have moved. Raises Stopped when the others have given up."""
        if self._stopped.is_set():
            raise Stopped
        with self._lock:
            self.moved += size

    def pause(self, seconds: float) -> None:
        """Wait. Raises Stopped when the others have given up."""
        if self._stopped.wait(seconds):
            raise Stopped

    def run(self, name: str, jobs: Sequence[Callable[[], object]], total: int, had: int = 0, workers: int = 0) -> None:
        """Do the jobs, `workers` at a time, and show it as a phase; the first failure, or Ctrl-C, ends them all.

        `total` is the bytes of all jobs, of which `had` were there before.
        """
        began, before = time.monotonic(), self.moved
        pool = ThreadPoolExecutor(workers or WORKERS)
        try:
            waiting = {pool.submit(job) for job in jobs}
            while waiting:
                self.progress.show(phase(name, self.moved - before, total, had, time.monotonic() - began))
                done, waiting = wait(waiting, _SHOW_EVERY_S, FIRST_EXCEPTION)
                for each in done:
                    each.result()
            self.progress.show(phase(name, self.moved - before, total, had, time.monotonic() - began))
        except BaseException:
            self._stopped.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def phase(name: str, moved: int, total: int, had: int, seconds: float) -> Phase:
    """How far it is: share, bytes, rate and the time that is left."""
    done = min(had + moved, total)
    rate = max(0, moved) / seconds if seconds > 0 else 0.0
    left = f", {_time((total - done) / rate)} left" if rate and done < total else ""
    return Phase(name, done / total if total else None, f"{size(done)} of {size(total)}, {size(rate)}/s{left}")


def size(count: float) -> str:
    """Bytes for a person, in powers of ten as the hub counts them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit != "GB" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def _time(seconds: float) -> str:
    from berth.slurm.durations import words

    return words(seconds)


def must_have_room(folder: Path, needed: int, what: str) -> None:
    """Raise BerthError (exit code 3) where a disk has less than `needed` bytes for what is to come."""
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    if needed and needed + _KEEP_FREE > free:
        raise failed(
            f"{what} takes {size(needed)} more, and {folder} has {size(free)} free",
            "make room (scripts/berth gc --models shows what nobody needs), or put it elsewhere with --to DIR",
            Exit.MISSING_PREREQUISITE,
        )
