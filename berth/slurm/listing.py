"""What a user has on the cluster: a line for each living job, or for the last one of a deployment that has none."""

from collections.abc import Sequence
from dataclasses import dataclass

from berth.slurm import queue, reasons
from berth.slurm.durations import words
from berth.slurm.queue import Job
from berth.slurm.store import Deployed, EndpointFile, Store

HEADS = ("name", "model", "state", "job", "node", "port", "time left", "tokens/s", "")
LIVE = ("queued", "starting", "ready", "draining", "stale")


@dataclass(frozen=True)
class Row:
    """One job. `state` is queued, starting, ready, draining, stale, stopped or failed."""

    name: str
    model: str
    device: str
    state: str
    job: str = ""
    node: str = ""
    port: int = 0
    time_left_s: int | None = None
    tokens_per_s: float | None = None
    detail: str = ""
    endpoint: EndpointFile | None = None

    @property
    def live(self) -> bool:
        """Whether it has a job that has not ended."""
        return self.state in LIVE

    def cells(self) -> tuple[str, ...]:
        """The row for a person."""
        left = words(self.time_left_s) if self.time_left_s is not None else ""
        speed = f"{self.tokens_per_s:.1f}" if self.tokens_per_s is not None else ""
        port = str(self.port) if self.port else ""
        return self.name, self.model, self.state, self.job, self.node, port, left, speed, self.detail

    def facts(self) -> dict[str, object]:
        """The row for a program."""
        names = ("name", "model", "device", "state", "job", "node", "port", "time_left_s", "tokens_per_s", "detail")
        return {name: getattr(self, name) for name in names} | {
            "base_url": self.endpoint.base_url if self.endpoint else "",
            "key_file": self.endpoint.key_file if self.endpoint else "",
        }


def rows(store: Store, names: Sequence[str] | None = None) -> list[Row]:
    """The jobs of these deployments, or of all. Raises BerthError where the cluster does not answer."""
    wanted = store.names() if names is None else names
    deployed = [one for name in wanted if (one := store.load(name) or _by_hand(store, name))]
    ids = [job for one in deployed for job in one.jobs]
    found = queue.jobs(store.cluster, ids)
    now = store.now() if deployed else 0.0
    return [row for one in deployed for row in _rows(store, one, found, now)]


def _by_hand(store: Store, name: str) -> Deployed | None:
    """A deployment that sbatch alone made: it is known by what its runs say."""
    runs = store.endpoints(name)
    if not runs:
        return None
    jobs = list(dict.fromkeys(run.job for run in runs))
    return Deployed(name, runs[-1].device, runs[-1].model, jobs=jobs, sif=runs[-1].sif)


def _rows(store: Store, one: Deployed, found: Sequence[Job], now: float) -> list[Row]:
    said = {each.run: each for each in store.endpoints(one.name)}
    own = [job for job in found if job.id.partition("_")[0] in one.jobs]
    living = [_living(one, job, said.get(job.id), now) for job in own if not job.over]
    if living:
        running = [row for row in living if row.state != "queued"]
        queued = [row for row in living if row.state == "queued"]
        return [*running, *_one_line(queued)]
    last = next(reversed(said.values()), None)
    ended = next((job for job in reversed(own) if last is None or job.id == last.run), None)
    return [_ended(one, last, ended)]


def _one_line(queued: Sequence[Row]) -> list[Row]:
    """Successors wait by the dozen; the next one speaks for them."""
    from dataclasses import replace

    if len(queued) < 2:
        return list(queued)
    return [replace(queued[0], detail=f"{queued[0].detail}; {len(queued) - 1} more after it")]


def _living(one: Deployed, job: Job, said: EndpointFile | None, now: float) -> Row:
    if job.pending:
        why = reasons.explain(job.reason).words
        when = f", in about {words(job.start - now)}" if job.start and job.start > now else ""
        return Row(one.name, one.model, one.device, "queued", job.id, detail=why + when)
    if said is None:
        node = job.nodes
        return Row(one.name, one.model, one.device, "starting", job.id, node, time_left_s=job.time_left_s)
    state = "stale" if said.stale(now) else said.state
    if state in ("stopped", "failed"):  # its last breath
        state = "draining"
    return Row(
        one.name,
        said.model or one.model,
        said.device or one.device,
        state,
        job.id,
        ",".join(said.nodes) or job.nodes,
        said.port,
        job.time_left_s,
        said.watch.get("generation_tokens_per_s") if state == "ready" else None,
        detail(said, state, now),
        said,
    )


def detail(said: EndpointFile, state: str, now: float) -> str:
    """What a person wants to know besides the state."""
    if state == "stale":
        return f"silent for {words(now - said.heartbeat)}: its node may be gone"
    if state == "starting":
        phase = said.watch.get("phase") or {}
        percent = f" {phase['fraction']:.0%}" if phase.get("fraction") is not None else ""
        return f"{phase.get('name', '')}{percent}"
    if state == "ready" and said.restarts:
        return f"requeued {said.restarts}×"  # noqa: RUF001
    return said.reason


def _ended(one: Deployed, said: EndpointFile | None, job: Job | None) -> Row:
    """The end of the last job, told by itself or, where it could not, by Slurm."""
    if said and said.state in ("stopped", "failed"):
        state, why = said.state, said.reason
    elif job and job.state != "COMPLETED":
        state = "stopped" if job.state.startswith("CANCELLED") else "failed"
        why = ended_words(job)
    else:
        state, why = ("failed", "its job is gone, and Slurm no longer knows how it ended") if one.jobs else ("", "")
    number = said.run if said else job.id if job else next(iter(one.jobs), "")
    return Row(one.name, one.model, one.device, state or "stopped", number, detail=why, endpoint=said)


_ENDS = {
    "TIMEOUT": "its walltime was over",
    "NODE_FAIL": "a node failed",
    "OUT_OF_MEMORY": "it used more memory than it had asked for (SITE_MEM)",
    "PREEMPTED": "a job of higher priority took its nodes",
    "BOOT_FAIL": "a node did not start",
    "DEADLINE": "its deadline came before it could start",
    "FAILED": "Slurm says that it failed",
    "COMPLETED": "it ended by itself",
}


def ended_words(job: Job) -> str:
    """How a job ended, as Slurm tells it."""
    if job.state.startswith("CANCELLED"):
        return "it was cancelled"
    return _ENDS.get(job.state, f"Slurm says {job.state}") + (f" ({job.reason})" if job.reason else "")
