"""Processes by identity: a pid alone may since belong to somebody else."""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path


def born(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; with the pid it names one process. None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])  # field 22 of proc(5), counted after the name in brackets


def is_held(lock: Path) -> bool:
    """Whether a living process holds a lock file."""
    try:
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def end_groups(leaders: Iterable[tuple[int, int]], grace_s: float) -> int:
    """End process groups by (leader's pid, its birth): SIGTERM to the leader, SIGKILL to what is left. Returns how many."""
    alive = [pid for pid, birth in leaders if born(pid) == birth]
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(_group_lives(pid) for pid in alive) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in alive:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    return len(alive)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
