"""`berth cost`: what each job used, from Slurm's accounting, and the tokens it made for that, from its own record."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from berth.errors import Exit, failed
from berth.slurm.cluster import Cluster
from berth.slurm.durations import words
from berth.slurm.store import EndpointFile, Store

HOUR = 3600
HEADS = ("deployment", "job", "state", "elapsed", "used", "prompt", "generated", "tokens/unit h", "cost")
FIELDS = "JobID,State,ElapsedRaw,AllocTRES,NNodes"
NO_ACCOUNTING = "Slurm keeps no accounts here: times are those of the jobs' own records"
_GPU = re.compile(r"gres/(?:gpu|hpu)(?::[^=]+)?")


@dataclass(frozen=True)
class Use:
    """One job, or one replica, with all its restarts. `unit` is what is counted: GPU, CPU or node."""

    deployment: str
    job: str
    state: str
    elapsed_s: int
    unit: str
    unit_hours: float
    prompt_tokens: int
    generation_tokens: int

    @property
    def tokens_per_hour(self) -> float | None:
        """Tokens, read and written, for an hour of one GPU (CPU, node); None where nothing was used."""
        return (self.prompt_tokens + self.generation_tokens) / self.unit_hours if self.unit_hours else None

    def facts(self, price: float | None) -> dict[str, Any]:
        """What `--json` prints."""
        per_hour = self.tokens_per_hour
        return {
            **asdict(self),
            "tokens_per_unit_hour": per_hour if per_hour is None else round(per_hour, 1),
            "price": None if price is None else round(self.unit_hours * price, 4),
        }

    def row(self, price: float | None) -> tuple[str, ...]:
        """What a person reads."""
        per_hour = self.tokens_per_hour
        return (
            self.deployment,
            self.job,
            self.state,
            words(self.elapsed_s),
            f"{self.unit_hours:.3g} {self.unit} h",
            str(self.prompt_tokens),
            str(self.generation_tokens),
            "" if per_hour is None else f"{per_hour:.0f}",
            "" if price is None else f"{self.unit_hours * price:.2f}",
        )


@dataclass(frozen=True)
class Bill:
    """The uses of one or all deployments, and what is to be known about them."""

    uses: tuple[Use, ...]
    notes: tuple[str, ...] = ()

    def facts(self, price: float | None = None) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "jobs": [use.facts(price) for use in self.uses],
            "totals": [use.facts(price) for use in self.totals()],
            "notes": list(self.notes),
        }

    def totals(self) -> list[Use]:
        """One line for each deployment and unit."""
        sums: dict[tuple[str, str], list[Use]] = {}
        for use in self.uses:
            sums.setdefault((use.deployment, use.unit), []).append(use)
        return [
            Use(
                name,
                f"{len(found)} job{'s' if len(found) > 1 else ''}",
                "",
                sum(use.elapsed_s for use in found),
                unit,
                sum(use.unit_hours for use in found),
                sum(use.prompt_tokens for use in found),
                sum(use.generation_tokens for use in found),
            )
            for (name, unit), found in sums.items()
        ]


@dataclass(frozen=True)
class Account:
    """What sacct says of one job; restarts of it are added up."""

    job: str
    state: str
    elapsed_s: int
    unit: str
    unit_s: int


def cost(store: Store, name: str | None = None) -> Bill:
    """The use of one deployment, or of all. Raises BerthError for a deployment that does not exist."""
    known = store.names()
    if name is not None and name not in known:
        raise failed(f"{name}: no such deployment", f"there are: {', '.join(known) or 'none'}", Exit.BAD_SETTING)
    wanted = [name] if name else known
    records = {one: store.endpoints(one) for one in wanted}
    jobs = {one: _jobs(store, one, records[one]) for one in wanted}
    every = sorted({job for found in jobs.values() for job in found}, key=_by_number)
    accounts = accounting(store.cluster, every)
    uses: list[Use] = []
    for one in wanted:
        uses += deployment_uses(one, jobs[one], records[one], accounts or [], _devices_per_node(store, one))
    return Bill(tuple(uses), () if accounts is not None else (NO_ACCOUNTING,))


def accounting(cluster: Cluster, jobs: Sequence[str]) -> list[Account] | None:
    """What sacct says of these jobs and array tasks; None where Slurm keeps no accounts."""
    if not jobs:
        return []
    # -D: a requeued job has one line for each of its lives.
    argv = ["sacct", "-X", "-n", "-P", "-D", "-j", ",".join(jobs), f"--format={FIELDS}"]
    answer = cluster.run(argv, check=False)
    return None if answer.code else parse(answer.stdout)


def parse(text: str) -> list[Account]:
    """The lines of `sacct -P -D`, the lives of a requeued job added up; jobs that never had a node are left out."""
    found: dict[str, Account] = {}
    for line in text.splitlines():
        job, state, elapsed, tres, nodes = (*line.split("|"), "", "", "", "")[:5]
        if not elapsed.isdigit() or "[" in job or (elapsed == "0" and not tres):
            continue
        unit, count = devices(tres, int(nodes) if nodes.isdigit() else 1)
        before = found.get(job)
        seconds, used = int(elapsed), int(elapsed) * count
        if before:
            seconds, used = seconds + before.elapsed_s, used + before.unit_s
        found[job] = Account(job, state.split(" ")[0].lower(), seconds, unit, used)
    return list(found.values())


def devices(tres: str, nodes: int = 1) -> tuple[str, int]:
    """What one second of an allocation counts: its GPUs, else its CPUs, else its nodes."""
    counts = dict(part.split("=", 1) for part in tres.split(",") if "=" in part)
    gpus = {name: int(count) for name, count in counts.items() if _GPU.fullmatch(name) and count.isdigit()}
    # gres/gpu=8 is the sum; gres/gpu:a100=8 beside it says the same once more.
    untyped = [count for name, count in gpus.items() if ":" not in name]
    if total := sum(untyped) or sum(gpus.values()):
        return "GPU", total
    cpus = counts.get("cpu", "")
    return ("CPU", int(cpus)) if cpus.isdigit() and int(cpus) else ("node", nodes)


def deployment_uses(
    name: str, jobs: Iterable[str], records: Sequence[EndpointFile], accounts: Sequence[Account], gpus_per_node: int
) -> list[Use]:
    """Join Slurm's accounts with the jobs' own records; a job that Slurm does not know counts by its record."""
    wanted = set(jobs)
    runs = {record.run: record for record in records}
    uses = []
    for account in accounts:
        if account.job in wanted or account.job.partition("_")[0] in wanted:
            prompt, generated = _tokens(runs.pop(account.job, None))
            uses.append(
                Use(
                    name,
                    account.job,
                    account.state,
                    account.elapsed_s,
                    account.unit,
                    account.unit_s / HOUR,
                    prompt,
                    generated,
                )
            )
    for record in runs.values():
        elapsed = max(0, int(record.heartbeat - record.started))
        unit, count = ("GPU", gpus_per_node) if gpus_per_node else ("node", 1)
        hours = elapsed * count * max(1, len(record.nodes)) / HOUR
        uses.append(Use(name, record.run, record.state, elapsed, unit, hours, *_tokens(record)))
    return sorted(uses, key=lambda use: _by_number(use.job))


def _tokens(record: EndpointFile | None) -> tuple[int, int]:
    watch = record.watch if record else {}
    return int(watch.get("prompt_tokens") or 0), int(watch.get("generation_tokens") or 0)


def _jobs(store: Store, name: str, records: Sequence[EndpointFile]) -> set[str]:
    """Jobs that were submitted by `berth up`, and those whose runs are there, sbatch by hand included."""
    deployed = store.load(name)
    return {*(deployed.jobs if deployed else ()), *(record.run for record in records)}


def _devices_per_node(store: Store, name: str) -> int:
    """GPUs of a node by the deployment's own settings, for where Slurm does not count them."""
    text = (store.cluster.read(f"{store.deployment_dir(name)}/job.env") or b"").decode(errors="replace")
    said = re.search(r"^BERTH_GPUS_PER_NODE=(\d+)$", text, re.MULTILINE)
    return int(said[1]) if said else 0


def _by_number(job: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in job.split("_"))
