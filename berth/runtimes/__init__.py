"""The ways to run a deployment: one file each, behind one protocol, none knowing another."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol

from berth.deployment import Deployment
from berth.errors import BerthError, Exit, Problem, failed
from berth.progress import Progress

# In the order in which `berth up` prefers them; each is a module here with a class `Runtime`.
NAMES = ("compose", "native")

ENGINE, SERVICE = "engine", "llm"


@dataclass(frozen=True)
class Endpoint:
    """Where a deployment is reached from this machine."""

    service: str
    engine: str


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

    @property
    def stopped(self) -> bool:
        """Whether nothing of the deployment runs."""
        return self.state in ("stopped", "failed")


class Runtime(Protocol):
    """One way to run a deployment."""

    name: str

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

    def status(self) -> Status:
        """What of it runs now."""


def load(name: str) -> Runtime:
    """Return the runtime of that name. Raises BerthError (exit code 2) for one that does not exist."""
    if name not in NAMES:
        raise failed(f"{name}: no such runtime", f"known runtimes: {', '.join(NAMES)}", Exit.BAD_SETTING)
    runtime: Runtime = import_module(f"{__name__}.{name}").Runtime()
    return runtime


def choose(wanted: str | None) -> tuple[Runtime, str]:
    """The runtime for a new deployment and why it was chosen.

    Raises BerthError (exit code 3) when the one asked for is not available here.
    """
    if wanted:
        runtime = load(wanted)
        if problem := runtime.unavailable():
            raise BerthError(problem)
        return runtime, "--runtime"
    why = ""
    for name in NAMES:
        runtime = load(name)
        problem = runtime.unavailable()
        if problem is None:
            return runtime, why or "available here"
        why = f"not {name}: {problem.sentence}"
    raise failed("no runtime is available here", f"{why}; see: scripts/berth doctor", Exit.MISSING_PREREQUISITE)


def available() -> list[Runtime]:
    """The runtimes that this machine has."""
    return [runtime for runtime in map(load, NAMES) if runtime.unavailable() is None]


def running(wanted: str | None = None) -> Runtime | None:
    """The runtime that has a deployment of this checkout running, or None. Raises BerthError for an unknown name."""
    found = available() if wanted is None else [load(wanted)]
    return next((one for one in found if one.unavailable() is None and not one.status().stopped), None)


def local_url(address: str, port: int) -> str:
    """The URL of a port of this machine that a server listens on; every-address means loopback to a client here."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(address, address)
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"
