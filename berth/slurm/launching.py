"""Submits the deployments of a fleet file: all of them, or none."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from berth import deployment as deployments
from berth import up
from berth.deployment import Deployment
from berth.envfiles import Setting
from berth.errors import BerthError, Exit, Problem, failed
from berth.progress import Progress
from berth.runtimes import Request
from berth.runtimes.slurm import Runtime
from berth.slurm import durations, fleet, listing
from berth.slurm.fleet import Wanted
from berth.slurm.store import Deployed
from berth.slurm.submit import Plan

HEADS = ("name", "model", "device", "jobs", "nodes", "replicas", "time", "keep-alive")


@dataclass(frozen=True)
class Launch:
    """One deployment that has been looked at and could be submitted."""

    runtime: Runtime
    deployment: Deployment
    plan: Plan

    @property
    def commands(self) -> list[str]:
        """The sbatch commands, in their order."""
        return self.runtime.commands(self.deployment)


@dataclass(frozen=True)
class Launched:
    """One deployment that has been submitted."""

    deployed: Deployed

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        names = ("name", "model", "device", "jobs", "nodes", "replicas", "walltime_s", "keep_alive_s")
        return {name: getattr(self.deployed, name) for name in names}

    def row(self) -> tuple[str, ...]:
        """What a person reads."""
        one = self.deployed
        jobs = one.jobs[0] + (f" and {len(one.jobs) - 1} more" if len(one.jobs) > 1 else "")
        walltime = durations.words(one.walltime_s) if one.walltime_s else ""
        kept = durations.words(one.keep_alive_s) if one.keep_alive_s else ""
        return one.name, one.model, one.device, jobs, str(one.nodes), str(one.replicas), walltime, kept


def prepare(file: Path, progress: Progress, site: Path | None = None, ask_cluster: bool = True) -> list[Launch]:
    """Look at every deployment of a file as `berth up` does; a dry run asks the cluster nothing.

    Raises BerthError with all that is wrong with them.
    """
    found: list[Launch] = []
    problems: list[Problem] = []
    for wanted in fleet.read(file):
        try:
            found.append(_prepared(wanted, progress, site, ask_cluster))
        except BerthError as error:
            problems += [replace(each, sentence=f"{wanted.where}: {each.sentence}") for each in error.problems]
    if problems:
        raise BerthError(problems)
    names = [one.plan.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise failed(f"{name}: two deployments have this name", "give them names of their own", Exit.BAD_SETTING)
    return found


def _prepared(wanted: Wanted, progress: Progress, site: Path | None, ask_cluster: bool) -> Launch:
    deployment = resolve(wanted)
    request = Request(
        site=site,
        name=wanted.name,
        time_s=wanted.time_s,
        nodes=wanted.nodes,
        keep_alive_s=wanted.keep_alive_s,
        handover_s=wanted.handover_s,
        replicas=wanted.replicas,
    )
    runtime = Runtime(request)
    if problem := runtime.unavailable():
        raise BerthError(problem)
    deployments.check_settings(deployment)
    plan = runtime.plan(deployment)
    if not ask_cluster:
        return Launch(runtime, deployment, plan)
    if any(row.live for row in listing.rows(runtime.store, [plan.name])):
        raise failed(
            f"{plan.name} has a job already", f"scripts/berth stop {plan.name}, or another name", Exit.BAD_SETTING
        )
    looked_at = up.check(deployment, runtime, progress)
    return Launch(runtime, looked_at, runtime.plan(looked_at))


def resolve(wanted: Wanted) -> Deployment:
    """The deployment of one table of the file; its settings win over the env files and the shell."""
    shell = {name: value for name, value in os.environ.items() if name not in wanted.settings}
    found = deployments.resolve(wanted.env, wanted.device, shell)
    own = {name: Setting(name, value, wanted.where) for name, value in wanted.settings.items()}
    return replace(found, settings={**found.settings, **own})


def launch(ready: Sequence[Launch], progress: Progress) -> list[Launched]:
    """Submit all. When one is refused, those before it are cancelled. Raises BerthError."""
    done: list[Launched] = []
    try:
        for one in ready:
            one.runtime.start(one.deployment, progress, attached=False)
            deployed = one.runtime.store.load(one.plan.name)
            assert deployed
            done.append(Launched(deployed))
    except BaseException:
        for one, launched in zip(ready, done, strict=False):
            one.runtime.store.cluster.run(["scancel", "--quiet", *launched.deployed.jobs], check=False)
        raise
    return done
