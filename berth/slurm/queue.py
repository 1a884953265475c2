"""Jobs, as squeue tells them, and sacct those that have ended."""

import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

from berth.errors import failed
from berth.slurm.cluster import Cluster, Completed

# The name comes last: it may hold the separator.
_SQUEUE = "%i|%T|%r|%N|%D|%S|%e|%L|%j"
_SACCT = "JobID,State,Reason,NodeList,NNodes,Start,End,Elapsed,JobName"
_CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")
# Sites may set `relative`; what is parsed here is `2026-11-21T10:00:00`, in UTC wherever the login node stands.
_STANDARD = ["env", "SLURM_TIME_FORMAT=standard", "TZ=UTC0"]

ATTEMPTS, PAUSE_S = 3, 2.0

PENDING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
RUNNING = ("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED", "RESIZING")


@dataclass(frozen=True)
class Job:
    """One job or array task: `12`, `12_0`. Times are Unix seconds, None where Slurm does not know."""

    id: str
    name: str
    state: str
    reason: str = ""
    nodes: str = ""
    node_count: int = 1
    start: float | None = None
    end: float | None = None
    time_left_s: int | None = None

    @property
    def pending(self) -> bool:
        """Whether it waits."""
        return self.state in PENDING

    @property
    def running(self) -> bool:
        """Whether it has its nodes."""
        return self.state in RUNNING

    @property
    def over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return not self.pending and not self.running


def jobs(cluster: Cluster, ids: Sequence[str] | None = None) -> list[Job]:
    """The jobs of these ids, array tasks each by itself; without ids, all of this user's that have not ended.

    Raises BerthError where there is no Slurm or it does not answer.
    """
    if ids is not None and not ids:
        return []
    which = ["--me"] if ids is None else ["-j", ",".join(ids)]
    asked = [*_STANDARD, "squeue", "--noheader", "--array", "--states=all", "-o", _SQUEUE, *which]
    done = _patiently(cluster, asked)
    found = [job for line in done.stdout.splitlines() if (job := _parsed(line))]
    if ids is None:
        return [job for job in found if not job.over]
    missing = [each for each in ids if not any(_belongs(job.id, each) for job in found)]
    return found + (_ended(cluster, missing) if missing else [])


def _patiently(cluster: Cluster, argv: Sequence[str]) -> Completed:
    """Ask squeue; a controller that is busy or restarts is asked again. Unknown ids are an answer, too."""
    for left in reversed(range(ATTEMPTS)):
        done = cluster.run(argv, check=False)
        if done.code == 0 or "Invalid job id" in done.stderr:
            return done
        if left:
            time.sleep(PAUSE_S)
    raise failed(f"squeue failed: {done.last}", f"by hand: {shlex.join(cluster.command(argv))}")


def _belongs(job: str, asked: str) -> bool:
    return job == asked or job.partition("_")[0] == asked


def _parsed(line: str) -> Job | None:
    cells = line.split("|", 8)
    if len(cells) < 9:
        return None
    number, state, reason, nodes, count, start, end, left, name = cells
    return Job(
        number,
        name,
        state,
        "" if reason == "None" else reason,
        nodes,
        int(count) if count.isdigit() else 1,
        _moment(start),
        _moment(end),
        seconds(left),
    )


def _ended(cluster: Cluster, ids: Sequence[str]) -> list[Job]:
    """Jobs that squeue has forgotten; none where the cluster keeps no accounts."""
    asked = [*_STANDARD, "sacct", "-n", "-X", "-P", "-j", ",".join(ids), "-o", _SACCT]
    done = cluster.run(asked, check=False)
    return [job for line in done.stdout.splitlines() if (job := _parsed(line))] if done.code == 0 else []


def _moment(text: str) -> float | None:
    try:
        return float(time_of(text))
    except ValueError:
        return None


def time_of(text: str) -> int:
    """Unix seconds of `2026-11-21T10:00:00` in UTC. Raises ValueError for N/A, Unknown and the like."""
    import calendar

    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def seconds(text: str) -> int | None:
    """Seconds of Slurm's `1-02:03:04`, `02:03:04` or `3:04`; None for UNLIMITED, INVALID and NOT_SET."""
    match = _CLOCK.fullmatch(text.strip())
    if not match:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def estimated_start(cluster: Cluster, job: str) -> float | None:
    """When the scheduler thinks that a waiting job will start (Unix seconds); None where it does not know yet."""
    asked = [*_STANDARD, "squeue", "--noheader", "--start", "-o", "%S", "-j", job]
    done = cluster.run(asked, check=False)
    moments = [moment for line in done.stdout.splitlines() if (moment := _moment(line.strip())) is not None]
    return min(moments, default=None)
