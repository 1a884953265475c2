"""Past the walltime: successors that start before their predecessor ends, all submitted at once.

A successor is held by `--dependency=after:PREDECESSOR+MINUTES`, which Slurm counts from the predecessor's *start* and
counts anew when that job is requeued, so a long queue moves the whole chain and never tears it.
"""

from dataclasses import dataclass

from berth.errors import BerthError, Exit, failed
from berth.slurm.durations import words

MOST_JOBS = 50
MINUTE = 60
# A successor loads the model while its predecessor serves: a tenth of the walltime, unless that is less than a small
# model needs (5 minutes) or more than the largest do (405B from a parallel file system: 30 to 40 minutes).
SHORTEST_HANDOVER_S, LONGEST_HANDOVER_S = 5 * MINUTE, 60 * MINUTE
LONGEST_WARNING_S = 120


@dataclass(frozen=True)
class Link:
    """One job of a plan: its walltime, and which job of the plan it follows, how long after that one's start."""

    time_s: int
    warning_s: int
    previous: int | None = None
    after_minutes: int = 0
    replicas: int = 1

    def options(self, ids: list[str]) -> list[str]:
        """What sbatch is told; `ids` are the job ids of the plan so far."""
        told = [f"--time={slurm_time(self.time_s)}", f"--signal=B:USR1@{self.warning_s}"]
        if self.replicas > 1:
            told.append(f"--array=0-{self.replicas - 1}")
        if self.previous is not None:
            told.append(f"--dependency=after:{ids[self.previous]}+{self.after_minutes}")
        return told


def default_handover(walltime_s: int) -> int:
    """Seconds that two jobs of a chain overlap: what a successor has to become ready, and the last one's warning."""
    return min(max(walltime_s // 10, SHORTEST_HANDOVER_S), LONGEST_HANDOVER_S, walltime_s // 2)


def warning(walltime_s: int, handover_s: int | None = None) -> int:
    """Seconds before the walltime at which a job is told to finish its requests; Slurm may be up to 60 s early."""
    return max(10, min(LONGEST_WARNING_S, (handover_s or walltime_s // 2) // 3))


def chain(walltime_s: int, keep_alive_s: int | None = None, handover_s: int | None = None) -> list[Link]:
    """The jobs that serve for `keep_alive_s`, each `walltime_s` long, each overlapping the one before by the handover.

    The last is trimmed, so that the whole is as long as was asked for. Without keep-alive: one job.
    Raises BerthError (exit code 2) for times that do not fit together.
    """
    if keep_alive_s is None:
        return [Link(walltime_s, warning(walltime_s))]
    handover_s = default_handover(walltime_s) if handover_s is None else handover_s
    told = warning(walltime_s, handover_s)
    if keep_alive_s <= walltime_s:
        return [Link(keep_alive_s, told)]
    minutes = (walltime_s - handover_s) // MINUTE
    if minutes < 1 or handover_s < 1:
        raise _refused(
            f"a handover of {words(handover_s)} does not fit into a walltime of {words(walltime_s)}",
            "Slurm starts a successor at least a minute after its predecessor: give a longer --time",
        )
    step = minutes * MINUTE
    jobs = 1 + -(-(keep_alive_s - walltime_s) // step)
    if jobs > MOST_JOBS:
        raise _refused(
            f"--keep-alive {words(keep_alive_s)} takes {jobs} jobs of {words(walltime_s)}; {MOST_JOBS} is the most",
            "give a longer --time, or a shorter --keep-alive",
        )
    followers = [Link(walltime_s, told, place, minutes) for place in range(jobs - 2)]
    last = Link(keep_alive_s - (jobs - 1) * step, told, jobs - 2, minutes)
    return [Link(walltime_s, told), *followers, last]


def plan(
    walltime_s: int, keep_alive_s: int | None = None, replicas: int = 1, handover_s: int | None = None
) -> list[Link]:
    """All jobs of a deployment in the order of submission.

    Replicas are one array job. Under keep-alive each replica is a chain of its own: an array's successor would wait
    until the last task has started, when the first may have ended.
    Raises BerthError (exit code 2).
    """
    links = chain(walltime_s, keep_alive_s, handover_s)
    if len(links) == 1:
        return [Link(links[0].time_s, links[0].warning_s, replicas=replicas)]
    if len(links) * replicas > MOST_JOBS:
        raise _refused(
            f"{replicas} replicas for {words(keep_alive_s or 0)} take {len(links) * replicas} jobs; "
            f"{MOST_JOBS} is the most",
            "give a longer --time, a shorter --keep-alive or fewer --replicas",
        )
    whole: list[Link] = []
    for _ in range(replicas):
        first = len(whole)
        for link in links:
            previous = None if link.previous is None else first + link.previous
            whole.append(Link(link.time_s, link.warning_s, previous, link.after_minutes))
    return whole


def slurm_time(seconds: int) -> str:
    """A duration as sbatch reads it: D-HH:MM:SS, or HH:MM:SS below a day."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def _refused(sentence: str, hint: str) -> BerthError:
    return failed(sentence, hint, Exit.BAD_SETTING)
