"""The store on the shared file system: deployments, their runs, SIFs and caches. Layout: docs/slurm.md."""

import dataclasses
import difflib
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from berth.errors import Exit, failed
from berth.slurm.cluster import Cluster
from berth.slurm.site import Site, root

STALE_S = 90  # the job writes its heartbeat every 5 s; file systems may show it half a minute late
LIVE_STATES = ("starting", "ready", "draining")


@dataclass(frozen=True)
class Deployed:
    """What was asked for: deployment.json. `jobs` are the ids that sbatch gave, `sbatch` the command lines."""

    name: str
    device: str
    model: str
    files: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    sbatch: list[list[str]] = field(default_factory=list)
    created: float = 0.0
    walltime_s: int | None = None
    nodes: int = 1
    replicas: int = 1
    keep_alive_s: int | None = None
    sif: str = ""


@dataclass(frozen=True)
class EndpointFile:
    """What a run says of itself: endpoint.json. Times are Unix seconds."""

    schema: int = 1
    deployment: str = ""
    run: str = ""
    job: str = ""
    state: str = ""
    reason: str = ""
    model: str = ""
    device: str = ""
    base_url: str = ""
    host: str = ""
    port: int = 0
    node: str = ""
    nodes: list[str] = field(default_factory=list)
    login_port: int | None = None
    key_file: str = ""
    started: float = 0
    ends: float | None = None
    heartbeat: float = 0
    restarts: int = 0
    sif: str = ""
    watch: dict[str, Any] = field(default_factory=dict)

    def stale(self, now: float | None = None) -> bool:
        """Whether it claims to be at work and has not said so for 90 seconds."""
        return self.state in LIVE_STATES and (now or time.time()) - self.heartbeat > STALE_S

    def alive(self, now: float | None = None) -> bool:
        """Whether it is at work."""
        return self.state in LIVE_STATES and not self.stale(now)


class Store:
    """The store of one user on one cluster."""

    def __init__(self, cluster: Cluster, site: Site) -> None:
        self.cluster, self.site = cluster, site
        self._root = ""

    @property
    def root(self) -> str:
        """Its directory on the cluster. Raises BerthError where nobody says where that is."""
        if not self._root:
            scratch = "" if self.site.scratch else self.cluster.run(["printenv", "SCRATCH"], check=False).stdout.strip()
            self._root = root(self.site, scratch)
        return self._root

    def deployment_dir(self, name: str) -> str:
        """The directory of a deployment."""
        return f"{self.root}/deployments/{name}"

    def sif(self, device: str) -> str:
        """Where `berth sif` puts a device's image."""
        return f"{self.root}/sif/vllm-{device}.sif"

    def names(self) -> list[str]:
        """The deployments that were ever submitted and not cleaned up."""
        return self.cluster.listdir(f"{self.root}/deployments")

    def load(self, name: str) -> Deployed | None:
        """What was asked for under a name, or None."""
        data = _object(self.cluster.read(f"{self.deployment_dir(name)}/deployment.json"))
        return Deployed(**_known(Deployed, data)) if data.get("name") else None

    def save(self, deployed: Deployed) -> None:
        """Write deployment.json."""
        text = json.dumps(dataclasses.asdict(deployed), indent=1)
        self.cluster.write(f"{self.deployment_dir(deployed.name)}/deployment.json", text.encode())

    def endpoints(self, name: str) -> list[EndpointFile]:
        """The runs of a deployment that have said something, the latest start last."""
        found = self.cluster.read_each(f"{self.deployment_dir(name)}/runs", "*/endpoint.json")
        read = [EndpointFile(**_known(EndpointFile, said)) for data in found.values() if (said := _object(data))]
        return sorted(read, key=lambda each: each.started)

    def now(self) -> float:
        """The cluster's own time: heartbeats are told in it. Unix seconds."""
        return float(self.cluster.run(["date", "+%s"]).stdout)

    def known(self, name: str) -> str:
        """The name, if there is such a deployment. Raises BerthError (exit code 2) with the nearest one."""
        names = self.names()
        if name in names:
            return name
        near = difflib.get_close_matches(name, names, n=1)
        listed = f"deployments: {', '.join(names)}" if names else "start one: scripts/berth up --runtime slurm"
        raise failed(f"{name}: no such deployment", f"did you mean {near[0]}?" if near else listed, Exit.BAD_SETTING)

    def key(self, name: str, given: str = "") -> str:
        """The key of a deployment's doors: the one that is given, else the one that is there, else a new one."""
        path = f"{self.deployment_dir(name)}/api_key"
        found = (self.cluster.read(path) or b"").decode().strip()
        key = given or found or secrets.token_urlsafe(32)
        if key != found:
            self.cluster.write(path, f"{key}\n".encode())
        return key


def _object(data: bytes | None) -> dict[str, Any]:
    """The JSON object in a file; nothing for one that is missing or torn."""
    try:
        said = json.loads(data or b"{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _known(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    """What this version knows of an object: a later one may have written more."""
    names = {each.name for each in dataclasses.fields(kind)}
    return {name: value for name, value in data.items() if name in names}
