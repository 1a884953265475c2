"""The ways to run a deployment: one file each, behind one protocol, none knowing another."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from berth import kserve
from berth.deployment import Deployment
from berth.errors import BerthError, Exit, Problem, failed
from berth.progress import Progress

# In the order in which `berth up` prefers them; each is a module here with a class `Runtime`.
NAMES = ("compose", "slurm", "native")
# Never chosen by itself: that kubectl is set to a cluster does not say that this is to run there.
ASKED_FOR = ("kubernetes",)
# Chosen by --hosts, and found again by what a checkout remembers.
ELSEWHERE = ("hosts",)

ENGINE, SERVICE = "engine", "llm"


@dataclass(frozen=True)
class Request:
    """What a command line asks for beside the env files. Most of it is for Slurm jobs."""

    site: Path | None = None
    name: str | None = None
    time_s: int | None = None
    nodes: int | None = None
    hold: bool = False
    keep_alive_s: int | None = None
    handover_s: int | None = None
    replicas: int | None = None
    everything: bool = False
    hosts: tuple[str, ...] = ()  # Docker hosts that ssh reaches

    @property
    def of_a_job(self) -> str:
        """The first option that a Slurm job understands, or nothing."""
        return self._first_but("everything")

    def only_here(self, runtime: str, *understood: str) -> None:
        """Raise BerthError (exit code 2) for an option that is for Slurm jobs, and none that `runtime` understands."""
        if option := self._first_but("everything", *understood):
            raise failed(f"{option} is for Slurm jobs, not for {runtime}", "add --runtime slurm", Exit.BAD_SETTING)

    def _first_but(self, *others: str) -> str:
        others = (*others, "hosts")
        given = (each.name for each in fields(self) if getattr(self, each.name) and each.name not in others)
        return next((f"--{name.removesuffix('_s').replace('_', '-')}" for name in given), "")


NOTHING = Request()


@dataclass(frozen=True)
class Endpoint:
    """Where a deployment is reached from this machine; `key_file` holds the key where every route asks for one.

    `certificate` is the file with the certificate of a service that speaks HTTPS.
    """

    service: str
    engine: str
    key_file: str = ""
    certificate: str = ""


@dataclass(frozen=True)
class Part:
    """The engine or the service: its state in one word, and what a person wants to know besides."""

    name: str
    state: str
    detail: str = ""


@dataclass(frozen=True)
class Status:
    """What runs now. `state` is stopped, starting, running, degraded, stopping or failed."""

    runtime: str
    state: str
    device: str = ""
    model: str = ""
    files: tuple[str, ...] = ()
    endpoint: Endpoint | None = None
    parts: tuple[Part, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    ready: bool | None = None  # None: ask the service

    @property
    def stopped(self) -> bool:
        """Whether nothing of the deployment runs."""
        return self.state in ("stopped", "failed")


@dataclass(frozen=True)
class Ready:
    """A deployment that answers: where, and the names of the models that it serves.

    `locked` is whether its clients show a key; `words` and `facts` are what a person and a program are told in place
    of the plain curl line.
    """

    endpoint: Endpoint
    models: tuple[str, ...] = ()
    words: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    locked: bool = False


class Runtime(Protocol):
    """One way to run a deployment."""

    name: str
    # The engine runs on this machine: its device and ports are looked at, a checkout runs one deployment at a time,
    # and what ends the command before it is ready ends the deployment.
    local: bool

    def unavailable(self) -> Problem | None:
        """Why this machine cannot run it at all, or None."""

    def problems(self, deployment: Deployment) -> list[Problem]:
        """What stands in the way of this deployment, as far as can be told without starting anything."""

    def commands(self, deployment: Deployment) -> list[str]:
        """The exact commands that `start` runs, secrets masked."""

    def render(self, deployment: Deployment) -> str:
        """What the deployment comes to in this runtime's own form: a Compose model, a launcher command."""

    def start(self, deployment: Deployment, progress: Progress, attached: bool) -> None:
        """Start and return; `attached` ties what was started to the life of this process.

        Whatever ends it early, a BerthError or Ctrl-C, leaves nothing of it running.
        """

    def wait(self, deployment: Deployment, progress: Progress, timeout_s: float, attached: bool) -> Ready:
        """Return once a chat request would be answered. Raises BerthError: exit code 4 after `timeout_s` seconds."""

    def stay(self, progress: Progress, tell: Callable[[], None], show_logs: bool) -> None:
        """Call `tell`, which says that it is ready, and stay with what was started until it ends, or until Ctrl-C."""

    def failure(self) -> Problem | None:
        """Why what was started will never be ready, or None while it still may."""

    def downloaded(self, deployment: Deployment) -> int | None:
        """Bytes of the model that have arrived, or None where that cannot be told."""

    def has_model(self, deployment: Deployment) -> bool:
        """Whether the model is in the cache that the engine will use."""

    def free_bytes(self, deployment: Deployment) -> int | None:
        """Free disk space for the model, or None where that cannot be told."""

    def logs(self, part: str | None, follow: bool, tail: int | None) -> Iterator[str]:
        """Log lines of one part or of both, the last `tail` first."""

    def stop_commands(self) -> list[str]:
        """The exact commands that `stop` comes to; none where nothing runs."""

    def stop(self, progress: Progress) -> bool:
        """Stop, requests in flight first. Returns whether there was anything to stop. Raises BerthError."""

    def status(self, deployment: Deployment | None = None) -> Status:
        """What of it runs now: of this deployment, where several run side by side."""


def load(name: str, request: Request = NOTHING) -> Runtime:
    """Return the runtime of that name. Raises BerthError (exit code 2) for one that does not exist."""
    known = (*NAMES, *ASKED_FOR, *ELSEWHERE)
    if name not in known:
        if name in kserve.FACES:
            hint = f"scripts/berth render --runtime {name}, and apply that with the cluster's own tools"
            raise failed(f"{name} is printed, not started", hint, Exit.BAD_SETTING)
        raise failed(f"{name}: no such runtime", f"known runtimes: {', '.join(known)}", Exit.BAD_SETTING)
    runtime: Runtime = import_module(f"{__name__}.{name}").Runtime(request)
    return runtime


def choose(wanted: str | None, request: Request = NOTHING) -> tuple[Runtime, str]:
    """The runtime for a new deployment and why it was chosen.

    Raises BerthError (exit code 3) when the one asked for is not available here.
    """
    if request.hosts and (wanted not in (None, "hosts") or request.of_a_job):
        other = f"--runtime {wanted}" if wanted else request.of_a_job
        raise failed(f"--hosts and {other} exclude each other", "keep one of the two", Exit.BAD_SETTING)
    if request.hosts or wanted or request.of_a_job:
        runtime = load("hosts" if request.hosts else wanted or "slurm", request)
        if problem := runtime.unavailable():
            raise BerthError(problem)
        return runtime, "--runtime" if wanted else request.of_a_job or "--hosts"
    why = ""
    for name in NAMES:
        runtime = load(name)
        problem = runtime.unavailable()
        if problem is None:
            return runtime, why or "available here"
        why = f"not {name}: {problem.sentence}"
    raise failed("no runtime is available here", f"{why}; see: scripts/berth doctor", Exit.MISSING_PREREQUISITE)


def available(request: Request = NOTHING) -> list[Runtime]:
    """The runtimes that this machine has; with an option of Slurm jobs, that one."""
    names = ("slurm",) if request.of_a_job else ELSEWHERE if request.hosts else (*NAMES, *ELSEWHERE)
    return [runtime for name in names if (runtime := load(name, request)).unavailable() is None]


def running(wanted: str | None = None, request: Request = NOTHING) -> Runtime | None:
    """The runtime that has a deployment of this checkout running, or None. Raises BerthError for an unknown name."""
    found = available(request) if wanted is None else [load(wanted, request)]
    return next((one for one in found if one.unavailable() is None and not one.status().stopped), None)


def running_here() -> Runtime | None:
    """The runtime that has a deployment of this checkout running on this machine, or None."""
    return next((one for one in available() if one.local and not one.status().stopped), None)


def local_url(address: str, port: int, *, tls: bool = False) -> str:
    """The URL of a port of this machine that a server listens on; every-address means loopback to a client here."""
    scheme = "https" if tls else "http"
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(address, address)
    return f"{scheme}://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"
