"""What the containers on several Docker hosts add up to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from berth.host import containers
from berth.hosts import placing
from berth.hosts.host import Host
from berth.paths import shown
from berth.runtimes import ENGINE, SERVICE, Endpoint, Part, Status
from engine import names

if TYPE_CHECKING:
    from docker.models.containers import Container

_PROJECT = "com.docker.compose.project"
_ENV_FILES = f"{_PROJECT}.environment_file"
Found = Mapping[Host, Mapping[str, "Container"]]


def status(runtime: str, found: Found, head_address: str) -> Status:
    """The state of the whole: running when every part is well, degraded once one of them has ended."""
    engines = [each[ENGINE] for each in found.values() if ENGINE in each]
    if not {engine.status for engine in engines} & {"running", "restarting"}:
        return Status(runtime, "stopped")
    first = engines[0]
    environ = _environ(first)
    parts = tuple(
        Part(f"{name} on {host.name}", *containers.described(each[name]))
        for host, each in found.items()
        for name in (ENGINE, SERVICE)
        if name in each
    )
    states = {part.state for part in parts}
    ended = len(engines) < len(found) or bool(states & {"exited", "dead"})
    return Status(
        runtime,
        "degraded" if ended else "running" if states == {"healthy"} else "starting",
        environ.get(names.DEVICE) or Path(environ.get("BERTH_DEVICE_ENV", "")).stem,
        environ.get(names.MODEL, ""),
        tuple(shown(Path(path)) for path in first.labels.get(_ENV_FILES, "").split(",") if path),
        _endpoint(next(iter(found.values())).get(SERVICE), head_address),
        parts,
        {"project": first.labels[_PROJECT]},
        ready=not ended and parts[0].state == "healthy",
    )


def _endpoint(service: "Container | None", head_address: str) -> Endpoint | None:
    """The service's, where this machine reaches it without SSH."""
    if service is None:
        return None
    environ = _environ(service)
    bound, _, port = containers.published(service).rpartition("//")[2].rpartition(":")
    tls, address = bool(environ.get("LLM_TLS_CERT_FILE")), environ.get("BIND_ADDR") or bound
    url = placing.service_url(address, int(port), head_address, tls=tls) if port else ""
    return Endpoint(url, "") if url else None


def _environ(container: "Container") -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in container.attrs["Config"]["Env"])


@dataclass(frozen=True)
class EngineLog:
    """The engine's log of one host, as the engine wrote it."""

    find: containers.Find

    def logs(self, part: str | None, follow: bool, tail: int | None) -> Iterator[str]:
        """As a runtime has it; another part than the engine is not asked for."""
        for _, line in containers.read_logs({ENGINE: self.find}, follow, tail):
            yield line
