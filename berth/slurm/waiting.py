"""From submission to the first answer: why the job waits, what the engine does, or why it failed."""

import time
from collections.abc import Sequence
from typing import Any

from berth.errors import BerthError, Exit, Problem, failed
from berth.progress import Progress
from berth.slurm import queue, reasons
from berth.slurm.durations import words
from berth.slurm.listing import ended_words
from berth.slurm.queue import Job
from berth.slurm.store import Deployed, EndpointFile, Store
from engine.phases import STARTING, Phase

POLL_S = 0.5  # of the endpoint files, on this machine's file system; through SSH half as often
QUEUE_POLL_S = 3.0  # of squeue: every question is work for the cluster's controller
LOG_END = 400


class Wait:
    """One wait for one deployment. The clock of `timeout_s` starts when the first job does."""

    def __init__(self, store: Store, deployed: Deployed, progress: Progress, timeout_s: float) -> None:
        self.store, self.deployed, self.progress, self.timeout_s = store, deployed, progress, timeout_s
        self._jobs: list[Job] = []
        self._asked = float("-inf")
        self._began: float | None = None
        self._last = STARTING

    def until_ready(self) -> EndpointFile:
        """The first run that is ready. Raises BerthError: why it failed, or exit code 4 when it takes too long."""
        pause = POLL_S if self.store.cluster.destination is None else 2 * POLL_S
        while True:
            runs = [run for run in self.store.endpoints(self.deployed.name) if run.job in self.deployed.jobs]
            ready = next((run for run in reversed(runs) if run.state == "ready"), None)
            if ready and not ready.stale(self.store.now()):
                return ready
            self._ask_queue()
            self._give_up(runs)
            self.progress.show(self._phase(runs))
            time.sleep(pause)

    def _ask_queue(self) -> None:
        if time.monotonic() - self._asked < QUEUE_POLL_S:
            return
        self._jobs, self._asked = queue.jobs(self.store.cluster, self.deployed.jobs), time.monotonic()
        if any(job.running for job in self._jobs):
            self._began = self._began or time.monotonic()

    def _leaders(self) -> list[Job]:
        """The jobs that wait for no other: while one of them may still come up, nothing is lost."""
        pairs = zip(self.deployed.jobs, self.deployed.sbatch, strict=False)
        later = {job for job, argv in pairs if any(word.startswith("--dependency=after:") for word in argv)}
        return [job for job in self._jobs if job.id.partition("_")[0] not in later]

    def _give_up(self, runs: Sequence[EndpointFile]) -> None:
        leaders = self._leaders()
        # A chain that is come back to goes on without its first job.
        if leaders and all(job.over for job in leaders) and not any(job.running for job in self._jobs):
            self._cancel_rest()
            raise BerthError(failure(self.store, self.deployed, leaders[-1], runs[-1] if runs else None))
        waiting = [job for job in leaders if job.pending]
        if waiting and (why := reasons.explain(waiting[0].reason)).hopeless:
            self._cancel_rest()
            raise failed(f"job {waiting[0].id} would wait for ever: {why.words}", why.remedy, Exit.BAD_SETTING)
        if self._began and time.monotonic() - self._began > self.timeout_s:
            name = self.deployed.name
            raise failed(
                f"not ready within {self.timeout_s:.0f} s of its start; the last phase was: {self._last}",
                f"the job runs on: scripts/berth connect {name}, or scripts/berth stop {name}; --timeout SECONDS waits "
                "longer",
                Exit.NOT_READY,
            )

    def _cancel_rest(self) -> None:
        left = [job.id for job in self._jobs if not job.over]
        if left:
            self.store.cluster.run(["scancel", "--quiet", *left], check=False)

    def _phase(self, runs: Sequence[EndpointFile]) -> Phase:
        running = [job for job in self._jobs if job.running]
        if not running and not any(run.state == "starting" for run in runs):
            return self._queued()
        said: dict[str, Any] = next((run.watch["phase"] for run in reversed(runs) if run.watch.get("phase")), {})
        where = next((run.node for run in reversed(runs) if run.node), running[0].nodes if running else "")
        self._last = str(said.get("name") or STARTING)
        detail = str(said.get("detail") or (f"on {where}" if where else ""))
        return Phase(self._last, said.get("fraction"), detail)

    def _queued(self) -> Phase:
        job = next(iter(self._leaders()), None)
        if job is None or not job.pending:
            return Phase("queued")
        why = reasons.explain(job.reason)
        start = job.start or queue.estimated_start(self.store.cluster, job.id)
        when = f"; estimated start in {words(start - self.store.now())}" if start else ""
        remedy = f" ({why.remedy.replace('JOB', job.id)})" if why.remedy else ""
        return Phase("queued", None, f"job {job.id}: {why.words}{remedy}{when}")


def failure(store: Store, deployed: Deployed, job: Job, run: EndpointFile | None) -> Problem:
    """Why a deployment's job ended before it was ready: its own reason, explained where the log tells more."""
    directory = store.deployment_dir(deployed.name)
    number = run.run if run else job.id
    place = f"{directory}/runs/{number}"
    hint = f"the whole log: scripts/berth logs --runtime slurm --name {deployed.name}; it lies in {place}"
    lines = end_of_log(store, deployed.name, number)
    if known := explained(lines):
        return known
    if run and run.reason:
        return Problem(f"job {number} failed: {run.reason}", hint, Exit.FAILED)
    last = f"; its last line: {lines[-1].strip()[:300]}" if lines else ""
    return Problem(f"job {number} ended before it was ready: {ended_words(job)}{last}", hint, Exit.FAILED)


def explained(lines: Sequence[str]) -> Problem | None:
    """What the lines of a log mean, and the remedy, if it is one of the known failures."""
    from berth.slurm.explain import explain

    return explain(lines)


def end_of_log(store: Store, name: str, run: str) -> list[str]:
    """The last lines of a run: the job script's, then the engine's, whose last word counts."""
    directory = store.deployment_dir(name)
    found = store.cluster.read_each(f"{directory}/runs/{run}", "*.log")
    order = sorted(found, key=lambda file: (file.startswith("engine"), file))
    lines: list[str] = []
    for file in order:
        lines += [line for line in found[file].decode(errors="replace").splitlines() if line.strip()][-LOG_END:]
    if not lines:
        said = store.cluster.read(f"{directory}/slurm-{run}.log") or b""
        lines = said.decode(errors="replace").splitlines()[-LOG_END:]
    return lines
