"""What killed jobs left on their nodes: private directories in /tmp, which each run wrote down, and shared memory."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from berth.slurm.store import Store

# As serve.sbatch makes them: user id, job id, and what mktemp adds.
_PLACE = re.compile(r"/tmp/berth-(\d+)-(\d+)\.[A-Za-z0-9]+", re.ASCII)  # noqa: S108 - read, not written
_RECORDS = "*/runs/*/private-*"
WAIT_S = 20  # a node that is busy is asked another time


@dataclass(frozen=True)
class Scratch:
    """A directory on a node, and the file of the run that names it."""

    node: str
    path: str
    record: str
    run: str


def find(store: Store, live: set[str]) -> list[Scratch]:
    """The private directories of runs that have ended without removing them."""
    user = store.cluster.run(["id", "-u"]).stdout.strip()
    found = []
    for record, data in store.cluster.read_each(f"{store.root}/deployments", _RECORDS).items():
        node, _, path = data.decode(errors="replace").strip().partition(" ")
        match, run = _PLACE.fullmatch(path), record.split("/")[2]
        if match and match[1] == user and re.fullmatch(r"[\w.-]+", node) and run not in live:
            found.append(Scratch(node, path, f"{store.root}/deployments/{record}", run))
    return found


def clear(store: Store, found: Sequence[Scratch]) -> list[str]:
    """Delete them, by a small job on each node. Returns the nodes that were too busy to be asked."""
    busy = []
    for node in sorted({each.node for each in found}):
        mine = [each for each in found if each.node == node]
        paths = [path for each in mine for path in (each.path, each.path.replace("/tmp/", "/dev/shm/", 1))]  # noqa: S108
        command = [*_job(store, node), "rm", "-rf", "--", *paths]
        done = store.cluster.run(command, check=False, timeout_s=WAIT_S + 40)
        if done.code:
            busy.append(node)
            continue
        for each in mine:
            store.cluster.remove(each.record)
    return busy


def _job(store: Store, node: str) -> list[str]:
    """A job of one minute on one node, as the site wants it."""
    site = store.site
    named = {"account": site.account, "partition": site.partition, "qos": site.qos}
    options = [f"--{name}={value}" for name, value in named.items() if value]
    size = [f"--nodelist={node}", "--nodes=1", "--ntasks=1", "--time=1", f"--immediate={WAIT_S}", "--chdir=/"]
    return ["srun", "--quiet", "--job-name=berth-gc", *size, *options]
