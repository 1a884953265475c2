"""`berth gc`: what dead jobs left behind. Never a model, never compiled code, never anything of a job that lives."""

import dataclasses
import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berth.host import processes
from berth.slurm import connections, queue, scratch
from berth.slurm.store import EndpointFile, Store
from berth.slurm.submit import job_name

DAY = 86400
_HALF_MADE = ".sif-"  # berth.sif's own temporary directories; whatever else lies there is somebody's
HALF_MADE_S = 6 * 3600  # no conversion takes longer: a multi-gigabyte image is minutes
HEADS = ("what", "where", "size", "why")
# Kilobytes, the newest change and the path of each; du counts a directory once a call, so each level is a call.
_SIZES = """
cd "$1" 2>/dev/null || exit 0
for level in deployments/*/runs/* deployments/* sif/.sif-* batches/*; do
    [ -e "$level" ] && printf '%s\\0' "$level"
done | xargs -0 -r -n 1 du -sk --time --time-style=+%s -- 2>/dev/null
exit 0
"""
# A run's batch.log is a link to the log that Slurm writes, in the deployment's directory.
_REMOVE_RUN = """
log=$(readlink -- "$1/batch.log")
case $log in */slurm-*.log) [ "${log%/*}" = "${1%/runs/*}" ] && rm -f -- "$log" ;; esac
exec rm -rf -- "$1"
"""


@dataclass(frozen=True)
class Leftover:
    """One thing that nobody needs. `kind` is deployment, run, endpoint, image, batch, connection or scratch."""

    kind: str
    where: str
    bytes: int
    why: str

    def row(self) -> tuple[str, ...]:
        """What a person reads."""
        return (self.kind, self.where, size(self.bytes) if self.bytes else "", self.why)


@dataclass(frozen=True)
class Swept:
    """What was found, whether it was deleted, and what could not be."""

    found: tuple[Leftover, ...]
    deleted: bool
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """All of it, as far as it has a size."""
        return sum(each.bytes for each in self.found)

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        found = [dataclasses.asdict(each) for each in self.found]
        return {"deleted": self.deleted, "bytes": self.bytes, "leftovers": found, "notes": list(self.notes)}


@dataclass(frozen=True)
class Entry:
    """A path of the store, its size, and when anything in it last changed."""

    path: str
    bytes: int
    changed: float


def sweep(store: Store, older_than_s: float = 7 * DAY, delete: bool = False) -> Swept:
    """Find, and with `delete` clear. Raises BerthError."""
    found = tuple(find(store, older_than_s))
    return Swept(found, delete, tuple(clear(store, found)) if delete and found else ())


def find(store: Store, older_than_s: float = 7 * DAY, now: float | None = None) -> list[Leftover]:
    """What is left over on the cluster. Raises BerthError where the queue cannot be read: nothing is known then."""
    now = now or store.now()
    records = {name: {each.run: each for each in store.endpoints(name)} for name in store.names()}
    beating = {run for runs in records.values() for run, record in runs.items() if record.alive(now)}
    live = live_jobs(store) | beating
    return [
        *(
            Leftover("scratch", f"{each.node}:{each.path}", 0, f"job {each.run} was killed")
            for each in scratch.find(store, live)
        ),
        *_stale(store, records, live, now),
        *_old(store, records, live, now, older_than_s),
        *_half_made(store, now),
        *_batches(store, now, older_than_s),
        *_connections(store, live),
    ]


def clear(store: Store, found: Sequence[Leftover]) -> list[str]:
    """Delete what was found, unless its job has come to life since. Returns what could not be. Raises BerthError."""
    live = live_jobs(store)
    wanted = {each.where for each in found if each.kind == "scratch"}
    mine = [each for each in scratch.find(store, live) if f"{each.node}:{each.path}" in wanted] if wanted else []
    busy = scratch.clear(store, mine)
    for each in found:
        parts = each.where.removeprefix(f"{store.root}/deployments/").split("/")
        if each.kind == "endpoint":
            if parts[2] not in live:
                _end(store, each.where)
        elif each.kind == "run":
            if parts[2] not in live:
                store.cluster.run(["sh", "-c", _REMOVE_RUN, "sh", each.where])
        elif each.kind == "deployment":
            if not _lives(store, parts[0], live):
                store.cluster.remove(each.where)
        elif each.kind == "connection":
            name = Path(each.where).parent.name
            connections.end_leftovers(Path(each.where))
            connections.forget(name)
        elif each.kind == "batch":
            if _job_of_batch(each.where) not in _names(store):
                store.cluster.remove(each.where)
        elif each.kind == "image":
            store.cluster.remove(each.where)
    return [f"{node} was too busy to be asked for its /tmp" for node in busy]


def live_jobs(store: Store) -> set[str]:
    """The runs that wait or work: job ids, and ids of array tasks."""
    return {job.id for job in queue.jobs(store.cluster)}


def _stale(store: Store, records: dict[str, dict[str, EndpointFile]], live: set[str], now: float) -> Iterator[Leftover]:
    """Endpoint files that still claim to be at work after their job has gone."""
    for name, runs in records.items():
        for run, record in runs.items():
            if record.stale(now) and run not in live:
                where = f"{store.deployment_dir(name)}/runs/{run}/endpoint.json"
                yield Leftover("endpoint", where, 0, f"says {record.state}, and job {run} has ended")


def _old(
    store: Store, records: dict[str, dict[str, EndpointFile]], live: set[str], now: float, older_than_s: float
) -> Iterator[Leftover]:
    """Deployments with nothing alive and nothing recent, and old runs of the others."""
    entries = {entry.path.removeprefix(f"{store.root}/deployments/"): entry for entry in sizes(store)}
    for name in records:
        mine = {path: entry for path, entry in entries.items() if path == name or path.startswith(f"{name}/runs/")}
        whole = mine.pop(name, None)
        if whole and whole.changed < now - older_than_s and not _lives(store, name, live):
            yield Leftover("deployment", whole.path, whole.bytes, f"no job of it, unchanged for {_days(whole, now)}")
            continue
        for path, entry in mine.items():
            if entry.changed < now - older_than_s and path.rpartition("/")[2] not in live:
                yield Leftover("run", entry.path, entry.bytes, f"its job has ended, unchanged for {_days(entry, now)}")


def _lives(store: Store, name: str, live: set[str]) -> bool:
    """Whether a deployment has a job in the queue: by its own list, or by a run of somebody's sbatch."""
    deployed = store.load(name)
    jobs = {*(deployed.jobs if deployed else ()), *store.cluster.listdir(f"{store.deployment_dir(name)}/runs")}
    return any(job in live or any(each.startswith(f"{job}_") for each in live) for job in jobs)


def _half_made(store: Store, now: float) -> Iterator[Leftover]:
    """What conversions that were killed left beside the images."""
    for entry in sizes(store):
        inside, _, name = entry.path.removeprefix(f"{store.root}/").partition("/")
        if inside == "sif" and name.startswith(_HALF_MADE) and entry.changed < now - HALF_MADE_S:
            yield Leftover("image", entry.path, entry.bytes, "a conversion that did not end")


def _batches(store: Store, now: float, older_than_s: float) -> Iterator[Leftover]:
    """Batches that were given up: `berth batch` takes its folder away once it has the answers."""
    old = [
        entry
        for entry in sizes(store)
        if entry.path.startswith(f"{store.root}/batches/") and entry.changed < now - older_than_s
    ]
    names = _names(store) if old else set()
    for entry in old:
        if _job_of_batch(entry.path) not in names:
            why = f"no job of it, unchanged for {_days(entry, now)}; answers that were not fetched go with it"
            yield Leftover("batch", entry.path, entry.bytes, why)


def _job_of_batch(place: str) -> str:
    """The name of a batch's jobs, of which its folder's is made (berth.batch.slurm)."""
    return job_name(f"batch-{place.rpartition('/')[2].rpartition('-')[0]}")


def _names(store: Store) -> set[str]:
    return {job.name for job in queue.jobs(store.cluster)}


def _connections(store: Store, live: set[str]) -> Iterator[Leftover]:
    """What this machine keeps of connections to deployments without a job; those that are open end by themselves."""
    for place in sorted(connections.CONNECT.glob(f"*/{socket.gethostname()}")):
        if not processes.is_held(place / "lock") and not _lives(store, place.parent.name, live):
            taken = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
            yield Leftover("connection", str(place), taken, "closed, and the deployment has no job")


def sizes(store: Store) -> list[Entry]:
    """Deployments, runs, images and batches of the store, each with its size and newest change."""
    said = store.cluster.run(["sh", "-c", _SIZES, "sh", store.root], check=False, timeout_s=600).stdout
    found = []
    for line in said.splitlines():
        kilobytes, changed, path = (*line.split("\t", 2), "", "")[:3]
        if kilobytes.isdigit() and changed.isdigit():
            found.append(Entry(f"{store.root}/{path}", int(kilobytes) * 1024, float(changed)))
    return found


def _end(store: Store, path: str) -> None:
    """Write the end that the job had no time to write; its tokens stay for `berth cost`."""
    said = json.loads(store.cluster.read(path) or b"{}")
    said.update(state="failed", reason="the job ended without a word; found by berth gc")
    store.cluster.write(path, json.dumps(said).encode())


def _days(entry: Entry, now: float) -> str:
    days = int((now - entry.changed) // DAY)
    return f"{days} day{'' if days == 1 else 's'}"


def size(count: float) -> str:
    """Bytes for a person."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"
