"""Processes by identity: a pid alone may since belong to somebody else."""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterable, Iterator
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


def boot() -> str:
    """Which boot of this machine this is: pids mean nothing across boots."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Wait until no other process is in a block under the same lock file, and keep others out of this one."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def end_sessions(leaders: Iterable[tuple[int, int]], grace_s: float) -> int:
    """End what is left of sessions, given as (leader's pid, its birth); the leader itself may be dead already.

    SIGTERM, which vLLM passes on to its workers, then SIGKILL after `grace_s` seconds. Returns how many sessions had
    anything left.
    """
    sessions = [pid for pid, birth in leaders if born(pid) in (birth, None) and members(pid)]
    for session in sessions:
        end_session(session, grace_s)
    return len(sessions)


def end_session(session: int, grace_s: float) -> None:
    """SIGTERM to the leader of a session, then to those it leaves; SIGKILL to what is left after `grace_s` seconds."""
    deadline = time.monotonic() + grace_s
    asked: set[int] = set()
    while (there := set(members(session))) and time.monotonic() < deadline:
        now = ({session} if session in there else there) - asked
        _signal(now, signal.SIGTERM)
        asked |= now
        time.sleep(0.1)
    _signal(members(session), signal.SIGKILL)


def members(session: int) -> list[int]:
    """Every living process of a session. Environments would not tell: vLLM's workers overwrite theirs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                state, _, _, its_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(its_session) == session and state not in "ZX":
                    found.append(int(entry.name))
    return found


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
