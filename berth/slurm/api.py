"""Berth on Slurm from Python, under the verbs' own names; the command line is a face of the same functions.

    from berth.slurm import api

    deployed = api.up("env/cuda.env", "env/models/qwen3-8b.env", time="4:00:00", keep_alive="36h")
    connection = api.connect(deployed.name)            # .url, and files with the key
    print(api.cost(deployed.name).totals())
    api.stop(deployed.name)

`site` is a site file everywhere (None: $BERTH_SITE, else apptainer/site.env). Durations are texts as `--time` takes
them. What goes wrong is a berth.errors.BerthError with one sentence and a hint for each problem.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from berth.progress import Progress
from berth.slurm import cost as costs
from berth.slurm import durations, listing
from berth.slurm import gc as leftovers
from berth.slurm import site as sites
from berth.slurm.cluster import Cluster
from berth.slurm.listing import Row
from berth.slurm.store import Deployed, Store
from engine.phases import Phase

if TYPE_CHECKING:
    from berth.deployment import Deployment
    from berth.runtimes.slurm import Runtime
    from berth.slurm.connections import Connection

__all__ = ["connect", "cost", "gc", "launch_many", "logs", "ls", "open_store", "render", "status", "stop", "up"]

Site = Path | str | None


class Quiet(Progress):
    """A program that calls these functions has an output of its own."""

    def say(self, text: str) -> None:
        """Nothing."""

    def show(self, phase: Phase) -> None:
        """Nothing."""


def open_store(site: Site = None) -> Store:
    """The store of this user on the cluster that a site file describes."""
    read = sites.load(_path(site))
    return Store(Cluster(read.login), read)


def up(
    *env: Path | str,
    name: str | None = None,
    device: str | None = None,
    time: str | None = None,
    nodes: int | None = None,
    replicas: int | None = None,
    keep_alive: str | None = None,
    handover: str | None = None,
    hold: bool = False,
    wait: bool = True,
    timeout_s: float = 3600,
    site: Site = None,
    progress: Progress | None = None,
) -> Deployed:
    """Submit a deployment and, with `wait`, return once it is ready; `timeout_s` counts from the start of its job."""
    from berth import up as steps
    from berth.errors import Exit, failed
    from berth.slurm.waiting import Wait

    progress = progress or Quiet()
    deployment, runtime = _plan(env, device, name, time, nodes, replicas, keep_alive, handover, hold, site)
    plan = runtime.plan(deployment)
    if any(row.live for row in listing.rows(runtime.store, [plan.name])):
        raise failed(f"{plan.name} has a job already", "give this one another name, or stop that one", Exit.BAD_SETTING)
    deployment = steps.check(deployment, runtime, progress)
    runtime.start(deployment, progress, attached=False)
    deployed = runtime.store.load(runtime.plan(deployment).name)
    assert deployed
    if wait and not hold:
        Wait(runtime.store, deployed, progress, timeout_s).until_ready()
    return deployed


def render(
    *env: Path | str,
    name: str | None = None,
    device: str | None = None,
    time: str | None = None,
    nodes: int | None = None,
    replicas: int | None = None,
    keep_alive: str | None = None,
    handover: str | None = None,
    site: Site = None,
) -> str:
    """What `up` would submit, secrets masked."""
    deployment, runtime = _plan(env, device, name, time, nodes, replicas, keep_alive, handover, False, site)
    return runtime.render(deployment)


def launch_many(file: Path | str, *, site: Site = None, progress: Progress | None = None) -> list[Deployed]:
    """Submit the deployments of a TOML file, all of them or none; they are not waited for."""
    from berth.slurm import launching

    progress = progress or Quiet()
    ready = launching.prepare(Path(file), progress, _path(site))
    return [one.deployed for one in launching.launch(ready, progress)]


def ls(*, site: Site = None) -> list[Row]:
    """A row for each living job, or for the last one of a deployment that has none."""
    return listing.rows(open_store(site))


def status(name: str, *, site: Site = None) -> list[Row]:
    """The rows of one deployment: its replicas, and the successor that waits."""
    store = open_store(site)
    return listing.rows(store, [store.known(name)])


def logs(
    name: str, part: str | None = None, *, follow: bool = False, lines: int | None = None, site: Site = None
) -> Iterator[str]:
    """Lines of the last run that has begun: of `engine`, of `llm`, or of both."""
    from berth.slurm import logs as reading

    store = open_store(site)
    return reading.read(store, store.known(name), part, follow, lines)


def connect(
    name: str | None = None, *, port: int | None = None, site: Site = None, progress: Progress | None = None
) -> "Connection":
    """An address on this machine that answers for a deployment; it outlives this program and ends with the last job."""
    from berth.slurm import connect as steps

    store = open_store(site)
    connection, _ = steps.open_door(store, name or steps.only_one(store), port, False, progress or Quiet())
    return connection


def stop(*names: str, site: Site = None, progress: Progress | None = None) -> list[str]:
    """End the jobs of these deployments, requests in flight first, and their connections; returns the jobs' ids."""
    from berth.slurm import connections, stopping

    store = open_store(site)
    known = [store.known(name) for name in names]
    ended = stopping.stop(store, known, progress or Quiet())
    for name in known:
        connections.close(name)
    return ended


def cost(name: str | None = None, *, site: Site = None) -> costs.Bill:
    """What the jobs of one deployment, or of all, have used."""
    return costs.cost(open_store(site), name)


def gc(older_than: str = "7d", *, delete: bool = False, site: Site = None) -> leftovers.Swept:
    """What ended jobs left behind; with `delete` it is gone afterwards."""
    return leftovers.sweep(open_store(site), durations.parse(older_than, "--older-than"), delete)


def _plan(
    env: tuple[Path | str, ...],
    device: str | None,
    name: str | None,
    time: str | None,
    nodes: int | None,
    replicas: int | None,
    keep_alive: str | None,
    handover: str | None,
    hold: bool,
    site: Site,
) -> tuple["Deployment", "Runtime"]:
    from berth import deployment as deployments
    from berth.errors import BerthError
    from berth.options import request
    from berth.runtimes.slurm import Runtime

    runtime = Runtime(request(_path(site), name, time, nodes, hold, keep_alive, replicas, handover))
    deployment = deployments.resolve([Path(file) for file in env], device)
    deployments.check_settings(deployment)
    if problem := runtime.unavailable():
        raise BerthError(problem)
    return deployment, runtime


def _path(site: Site) -> Path | None:
    return None if site is None else Path(site)
