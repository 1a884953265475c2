"""Ends jobs so that running answers finish: the batch shell is asked, never the processes of the step."""

import time
from collections.abc import Sequence

from berth.progress import Progress
from berth.slurm import queue
from berth.slurm.queue import Job
from berth.slurm.store import Store
from engine.phases import Phase

GRACE_S = 100  # a job drains for 75 s at most, then clears up
POLL_S = 1.0


def commands(jobs: Sequence[Job]) -> list[list[str]]:
    """What ends these jobs: those that wait at once, those that run by a word to their batch shell."""
    waiting, running = [job.id for job in jobs if job.pending], [job.id for job in jobs if job.running]
    asked = [["scancel", "--quiet", *waiting]] if waiting else []
    return [*asked, *([["scancel", "--quiet", "--signal=TERM", "--batch", *running]] if running else [])]


def living(store: Store, names: Sequence[str]) -> list[Job]:
    """The jobs of these deployments that have not ended."""
    ids = []
    for name in names:
        deployed = store.load(name)
        ids += deployed.jobs if deployed else sorted({each.job for each in store.endpoints(name) if each.job})
    return [job for job in queue.jobs(store.cluster, ids) if not job.over]


def stop(store: Store, names: Sequence[str], progress: Progress) -> list[str]:
    """End the jobs of these deployments and wait for their end; their ids are returned. Raises BerthError.

    A job that is deaf to the word is cancelled after `GRACE_S` seconds.
    """
    jobs = living(store, names)
    for command in commands(jobs):
        store.cluster.run(command, check=False)
    ids, left, deadline = [job.id for job in jobs], jobs, time.monotonic() + GRACE_S
    while left:
        progress.show(Phase("stopping", None, f"job {', '.join(job.id for job in left)}"))
        time.sleep(POLL_S)
        left = [job for job in queue.jobs(store.cluster, ids) if not job.over]
        if left and time.monotonic() > deadline:
            store.cluster.run(["scancel", "--quiet", *(job.id for job in left)], check=False)
            progress.say(f"job {', '.join(job.id for job in left)} did not listen, and was cancelled")
            break
    return ids
