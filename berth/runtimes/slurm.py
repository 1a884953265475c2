"""Slurm: a deployment is one job or a chain of them; everything is done through the cluster's login node."""

import shutil
import time
from collections.abc import Callable, Iterator

from berth import paths
from berth.deployment import Deployment
from berth.errors import Exit, Problem, failed
from berth.progress import Progress
from berth.runtimes import NOTHING, Endpoint, Part, Ready, Request, Status
from berth.slurm import checks, connect, connections, listing, logs, refusals, rendering, site, stopping, submit
from berth.slurm.cluster import Cluster
from berth.slurm.durations import words
from berth.slurm.listing import Row
from berth.slurm.sending import send
from berth.slurm.store import Deployed, Store
from berth.slurm.submit import Plan
from berth.slurm.waiting import Wait

_STATES = {"ready": "running", "queued": "starting", "draining": "stopping", "stale": "degraded"}

_PLAIN = Problem(
    "LLM_TLS_CERT_FILE: the service in a Slurm job speaks HTTP, which `berth connect` brings here through SSH",
    "leave LLM_TLS_CERT_FILE and LLM_TLS_KEY_FILE unset; for HTTPS, run the service here in front of the jobs "
    "(docs/service.md, Several engines)",
)


class Runtime:
    """Jobs of this user on the cluster of the site file."""

    name = "slurm"
    local = False

    def __init__(self, request: Request = NOTHING) -> None:
        self.request = request
        self._store: Store | None = None
        self._deployed: Deployed | None = None
        self._connection: connections.Connection | None = None

    @property
    def store(self) -> Store:
        """The store on the cluster. Raises BerthError (exit code 2) for a site file that is wrong."""
        if self._store is None:
            read = site.load(self.request.site)
            self._store = Store(Cluster(read.login), read)
        return self._store

    def unavailable(self) -> Problem | None:
        """Slurm's commands must be here, or a login node must be named."""
        if self.store.site.login or shutil.which("sbatch"):
            return None
        return Problem(
            "no sbatch on PATH: this is no login node of a Slurm cluster",
            "run this on a login node, or name one with SITE_LOGIN in apptainer/site.env",
            Exit.MISSING_PREREQUISITE,
        )

    def plan(self, deployment: Deployment) -> Plan:
        """What would be submitted."""
        return submit.plan(deployment, self.request, self.store)

    def problems(self, deployment: Deployment) -> list[Problem]:
        """What no node can give, then what is missing on the cluster's file system."""
        if deployment.certificate:
            return [_PLAIN]
        plan = self.plan(deployment)
        submit.job_settings(deployment), submit.hub_token(deployment)
        foreseen = refusals.foreseen(plan, self.store.cluster, self.store.site)
        return foreseen or checks.problems(plan, deployment, self.store)

    def commands(self, deployment: Deployment) -> list[str]:
        """The sbatch commands, in their order; JOB1 stands for the id that the first one gives."""
        return [rendering.shown(argv, self.store.cluster) for argv in self.plan(deployment).commands()]

    def render(self, deployment: Deployment) -> str:
        """The sbatch commands, the settings and the script, as they would be submitted."""
        return rendering.render(self.plan(deployment), deployment, self.store)

    def start(self, deployment: Deployment, progress: Progress, attached: bool) -> None:
        """Write the deployment's directory and submit its jobs. Raises BerthError, with no job left."""
        plan = self.plan(deployment)
        store = self.store
        store.cluster.remove(f"{plan.directory}/job")
        store.cluster.remove(f"{plan.directory}/hf_token")
        store.cluster.write_all(plan.directory, submit.files(deployment, store.site))
        store.key(plan.name, deployment.value("VLLM_API_KEY"))
        ids, argvs = send(plan, store)
        self._deployed = Deployed(
            plan.name,
            deployment.device,
            deployment.model,
            [paths.shown(file) for file in deployment.files],
            ids,
            argvs,
            time.time(),
            plan.walltime_s,
            plan.nodes,
            plan.replicas,
            self.request.keep_alive_s,
            plan.sif,
        )
        store.save(self._deployed)
        more = f" and {len(ids) - 1} successors" if len(ids) > 1 else ""
        progress.say(f"submitted as {plan.name}: job {ids[0]}{more}")

    def wait(self, deployment: Deployment, progress: Progress, timeout_s: float, attached: bool) -> Ready:
        """Wait for the first run that is ready, and open the local door to it. Ctrl-C leaves the jobs as they are."""
        deployed = self._deployed or self._known(self._name(deployment))
        if self.request.hold:
            return Ready(Endpoint("", ""), (), rendering.held(deployed), {"jobs": deployed.jobs, "held": True})
        try:
            if deployed.jobs:  # none where sbatch alone made it
                Wait(self.store, deployed, progress, timeout_s).until_ready()
            return self._connect(deployed.name, attached, progress)
        except KeyboardInterrupt:
            progress.say(
                f"job {', '.join(deployed.jobs[:3])} goes on. Back: scripts/berth connect {deployed.name}; "
                f"end it: scripts/berth stop {deployed.name}"
            )
            raise

    def _connect(self, name: str, attached: bool, progress: Progress) -> Ready:
        self._connection, _ = connect.open_door(self.store, name, None, attached, progress)
        facts = {**self._connection.facts(), "jobs": self._known(name).jobs, "stop": f"scripts/berth stop {name}"}
        told = self._connection.words(attached)
        endpoint = Endpoint(self._connection.url, "", facts["key_file"])
        return Ready(endpoint, (self._connection.model,), told + rendering.farewell(name), facts)

    def stay(self, progress: Progress, tell: Callable[[], None], show_logs: bool) -> None:
        """Keep the local door open until the last job ends, or until Ctrl-C, which leaves the job."""
        tell()
        if self._connection:
            connect.stay(self._connection, progress)

    def failure(self) -> Problem | None:
        """`wait` finds out by itself."""
        return None

    def downloaded(self, deployment: Deployment) -> int | None:
        """The job's own phase tells it."""
        return None

    def has_model(self, deployment: Deployment) -> bool:
        """Whether the model store on the cluster holds the model."""
        return checks.has_model(deployment, self.store)

    def free_bytes(self, deployment: Deployment) -> int | None:
        """Free space of the model store on the cluster."""
        return checks.free_bytes(deployment, self.store)

    def logs(self, part: str | None, follow: bool, tail: int | None) -> Iterator[str]:
        """The logs of the last run that has begun."""
        row = self._chosen()
        if row is None:
            raise failed("no deployment has a job", "start one: scripts/berth up --runtime slurm")
        return logs.read(self.store, row.name, part, follow, tail)

    def stop_commands(self) -> list[str]:
        """scancel: a word to the batch shell of those that run."""
        jobs = stopping.living(self.store, self._to_stop())
        return [rendering.shown(argv, self.store.cluster) for argv in stopping.commands(jobs)]

    def stop(self, progress: Progress) -> bool:
        """End the jobs of the one deployment that has some, of --name, or with --all of all."""
        names = self._to_stop()
        ended = stopping.stop(self.store, names, progress)
        for name in names:
            connections.close(name)
        return bool(ended)

    def _to_stop(self) -> list[str]:
        if self.request.name:
            return [self.store.known(self.request.name)]
        live = list(dict.fromkeys(row.name for row in listing.rows(self.store) if row.live))
        if len(live) > 1 and not self.request.everything:
            raise failed(
                f"{len(live)} deployments have jobs: {', '.join(live)}",
                "name one: scripts/berth stop NAME; or end them all: scripts/berth down --all",
                Exit.BAD_SETTING,
            )
        return live

    def status(self, deployment: Deployment | None = None) -> Status:
        """Of --name, of this deployment, else of the one that was submitted last and lives."""
        row = self._chosen(deployment)
        if row is None:
            return Status(self.name, "stopped")
        state = _STATES.get(row.state, row.state)
        door = connections.open_doors().get(row.name, "")
        inside = row.endpoint.base_url if row.endpoint else ""
        address = door or ("" if self.store.cluster.destination else inside)
        key = str(connections.directory(row.name) / "api_key") if door else self._key_file(row)
        said = self.store.load(row.name)
        facts = {
            "name": row.name,
            "node": row.node,
            "address on the cluster": row.endpoint.base_url if row.endpoint else "",
        }
        if row.time_left_s is not None:
            facts["time left"] = words(row.time_left_s)
        return Status(
            self.name,
            state,
            row.device,
            row.model,
            tuple(said.files) if said else (),
            Endpoint(address, "", key) if address and row.live else None,
            (Part(f"job {row.job}", row.state, row.detail),),
            {name: value for name, value in facts.items() if value},
            ready=row.state == "ready",
        )

    def _key_file(self, row: Row) -> str:
        return row.endpoint.key_file if row.endpoint else ""

    def _chosen(self, deployment: Deployment | None = None) -> Row | None:
        """The row that a verb is about: a living one first."""
        name = self.request.name or (submit.name_of(deployment, self.request) if deployment else None)
        if name and deployment is None:
            self.store.known(name)
        found = listing.rows(self.store, [name] if name else None)
        if name:
            return next(iter(found), None)
        live = [row for row in found if row.live]
        created = {row.name: (self.store.load(row.name) or Deployed("", "", "")).created for row in live or found}
        return max(live or found, key=lambda row: created[row.name], default=None)

    def _name(self, deployment: Deployment) -> str:
        return submit.name_of(deployment, self.request)

    def _known(self, name: str) -> Deployed:
        return self.store.load(name) or Deployed(name, "", "")
