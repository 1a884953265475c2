"""What this checkout remembers of the deployment that it has on other machines."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from berth.paths import RUN

FILE = RUN / "hosts.json"


@dataclass(frozen=True)
class Deployed:
    """The hosts in the order of their ranks, Compose's project, and the head's address in the hosts' own network."""

    hosts: tuple[str, ...]
    project: str
    head_address: str = ""


def remember(deployed: Deployed, file: Path = FILE) -> None:
    """Keep it until `forget`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".new")
    unfinished.write_text(json.dumps(asdict(deployed)))
    unfinished.replace(file)


def recall(file: Path = FILE) -> Deployed | None:
    """What was remembered; None where that is nothing, or nothing that can be read."""
    try:
        said = json.loads(file.read_text())
        return Deployed(tuple(str(host) for host in said["hosts"]), str(said["project"]), str(said["head_address"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget(file: Path = FILE) -> None:
    """Remember nothing."""
    file.unlink(missing_ok=True)
