"""What is submitted: the sbatch commands of a deployment on a site, and the directory that its jobs read."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from berth import handed
from berth.deployment import Deployment
from berth.errors import BerthError, Exit, Problem, failed
from berth.paths import ROOT
from berth.runtimes import Request
from berth.slurm import chain, durations
from berth.slurm.site import GRES, Site
from berth.slurm.store import Store
from berth.spread import NODES, gpus_per_node, number
from engine import names

EXECUTOR = "BERTH_EXECUTOR"
SCRIPT = ROOT / "apptainer"
# What an object store is opened with; a job is given files, and there is none for these.
_STORE_SECRETS = ("S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before anything is submitted."""

    name: str
    directory: str
    sif: str
    nodes: int
    gpus: int
    walltime_s: int | None
    options: tuple[str, ...]
    links: tuple[chain.Link, ...]
    request: Request

    def argv(self, place: int, ids: list[str]) -> list[str]:
        """The sbatch command of one job; `ids` are those of the jobs before it."""
        link = self.links[place] if self.links else None
        told = link.options(ids) if link else [f"--array=0-{self.replicas - 1}"] if self.replicas > 1 else []
        if self.request.hold and not (link and link.previous is not None):
            told = [*told, "--hold"]
        before = ["--predecessor", ids[link.previous]] if link and link.previous is not None else []
        inside = self.directory
        script = [f"{inside}/job/serve.sbatch", "--deployment", inside, "--site", f"{inside}/site.env"]
        return ["sbatch", "--parsable", *self.options, *told, *script, "--sif", self.sif, *before, f"{inside}/job.env"]

    def commands(self) -> list[list[str]]:
        """All sbatch commands, with `JOB1`, `JOB2`, … for ids that only Slurm can give."""
        return [self.argv(place, [f"JOB{k + 1}" for k in range(place)]) for place in range(len(self.links) or 1)]

    @property
    def replicas(self) -> int:
        """Copies of the engine."""
        return self.request.replicas or 1


def plan(deployment: Deployment, request: Request, store: Store) -> Plan:
    """Settle name, size, times and sbatch's options. Raises BerthError (exit code 2) for what does not fit together."""
    site, name = store.site, name_of(deployment, request)
    nodes = request.nodes or number(deployment, NODES) or 1
    gpus = gpus_per_node(deployment, nodes)
    walltime = request.time_s or (durations.parse(site.time, f"{site.where('time')}SITE_TIME") if site.time else None)
    directory = store.deployment_dir(name)
    return Plan(
        name,
        directory,
        store.sif(deployment.device),
        nodes,
        gpus,
        walltime,
        tuple(options(site, name, directory, nodes, gpus, request.replicas or 1)),
        _links(walltime, request),
        request,
    )


def _links(walltime: int | None, request: Request) -> tuple[chain.Link, ...]:
    """The jobs; none where the partition's own default is the walltime."""
    if request.handover_s and not request.keep_alive_s:
        raise failed("--handover is for --keep-alive", "give both, or neither", Exit.BAD_SETTING)
    if walltime is not None:
        return tuple(chain.plan(walltime, request.keep_alive_s, request.replicas or 1, request.handover_s))
    if request.keep_alive_s is None:
        return ()
    raise failed(
        "--keep-alive needs to know how long one job may run",
        "give --time, or set SITE_TIME in the site file",
        Exit.BAD_SETTING,
    )


def options(site: Site, name: str, directory: str, nodes: int, gpus: int, replicas: int) -> list[str]:
    """What sbatch is told of every job."""
    named = {
        "account": site.account,
        "partition": site.partition,
        "qos": site.qos,
        "constraint": site.constraint,
        "cpus-per-task": site.cpus_per_task,
        "mem": site.mem,
    }
    words = [f"--job-name={job_name(name)}", f"--nodes={nodes}", "--ntasks-per-node=1"]
    words += [f"--{option}={value}" for option, value in named.items() if value]
    words += shlex.split((site.gres or GRES).replace("{n}", str(gpus))) if gpus else []
    words += shlex.split(site.sbatch)
    run = "%A_%a" if replicas > 1 else "%j"
    # Not below runs/JOB: an older Slurm makes no directory for it. The job links it from there.
    return [*words, f"--chdir={directory}", f"--output={directory}/slurm-{run}.log"]


def job_name(name: str) -> str:
    """What squeue shows."""
    return f"berth-{name}"


def name_of(deployment: Deployment, request: Request) -> str:
    """--name, else the model's own name in small letters. Raises BerthError (exit code 2) for one that is no name."""
    name = request.name or deployment.short_name
    if not _NAME.fullmatch(name):
        raise failed(
            f"--name {name}: not a name for a deployment",
            "letters, digits, . _ and -, up to 63, a letter or digit first",
            Exit.BAD_SETTING,
        )
    return name


def job_settings(deployment: Deployment) -> dict[str, str]:
    """What the job is told; no secret is in it. Raises BerthError (exit code 2) for a value that a line cannot hold."""
    told = handed.settings(deployment)
    problems = [
        Problem(
            f"{deployment.where(name)}{name} holds a line break, which a job's env file cannot",
            "write the value on one line",
        )
        for name, value in told.items()
        if "\n" in value or "\r" in value
    ]
    if problems:
        raise BerthError(problems)
    if Path(deployment.model).is_dir():
        told[names.MODEL] = str(Path(deployment.model).absolute())
    return told


def job_env(settings: Mapping[str, str]) -> str:
    """The file that the job reads: literal NAME=value to the end of the line."""
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def hub_token(deployment: Deployment) -> str:
    """The token for the model hub, or nothing. Raises BerthError (exit code 2) for secrets that no job can be given."""
    for name in _STORE_SECRETS:
        if deployment.value(name) and deployment.model.startswith("s3://"):
            raise failed(
                f"{deployment.where(name)}{name}: secrets of an object store cannot be given to a job",
                f"bring it here: scripts/berth fetch {deployment.model} --to DIR, and let SITE_MODELS name DIR",
                Exit.BAD_SETTING,
            )
    found = (deployment.value(name) for name in (names.HF_TOKEN, "VLLM_HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    token = next(filter(None, found), "")
    if not token and (path := deployment.value(names.HF_TOKEN_PATH)) and Path(path).is_file():
        token = Path(path).read_text().strip()
    return token


def files(deployment: Deployment, site: Site) -> dict[str, tuple[bytes, int]]:
    """What the deployment directory holds, with modes; all but the key, which outlives what is submitted."""
    found = {"job.env": (job_env(job_settings(deployment)).encode(), 0o600)}
    found["site.env"] = (site.file.read_bytes() if site.file else b"", 0o600)
    if token := hub_token(deployment):
        found["hf_token"] = (f"{token}\n".encode(), 0o600)
    for place in (
        SCRIPT / "serve.sbatch",
        *sorted((SCRIPT / "lib").glob("*")),
        *sorted((SCRIPT / "devices").glob("*")),
    ):
        if place.is_file():
            mode = 0o700 if place.stat().st_mode & 0o100 else 0o600
            found[f"job/{place.relative_to(SCRIPT)}"] = (place.read_bytes(), mode)
    return found
