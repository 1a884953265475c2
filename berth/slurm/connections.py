"""The connections that this machine has: where they keep their state, what they are called, how they end."""

import contextlib
import json
import os
import shutil
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berth.host import processes
from berth.paths import STATE
from berth.slurm import snippets
from berth.slurm.tunnel import LOOPBACK

CONNECT = STATE / "connect"
STOPPING_S = 30
LEFTOVERS_S = 5


@dataclass(frozen=True)
class Connection:
    """A local door that is kept open. `model` is empty while no engine has been ready yet."""

    name: str
    url: str
    directory: Path
    model: str = ""

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        files = (self.directory / "api_key", self.directory / "authorization")
        return {
            "deployment": self.name,
            "url": self.url,
            "model": self.model,
            "key_file": str(files[0]),
            **snippets.facts(self.url, self.model, *files),
        }

    def words(self, attached: bool) -> str:
        """What a person reads once it answers."""
        files = (self.directory / "api_key", self.directory / "authorization")
        end = "Ctrl-C closes it, and the job runs on." if attached else "It closes when the job ends."
        return (
            f"\n{self.model} answers at {self.url}/v1 for as long as {self.name} has a job. {end}\n\n"
            f"{snippets.words(self.url, self.model, *files)}\n"
        )


def directory(name: str) -> Path:
    """Where a connection of this machine keeps its state; a home may be shared by several login nodes."""
    return CONNECT / name / socket.gethostname()


def close(name: str) -> bool:
    """End this machine's connection to a deployment, if there is one. Returns whether there was."""
    place = directory(name)
    if not processes.is_held(place / "lock"):
        return end_leftovers(place)
    pid = int(read_state(place).get("pid", 0))
    deadline = time.monotonic() + STOPPING_S
    asked = False
    while processes.is_held(place / "lock"):
        if pid and (not asked or time.monotonic() > deadline):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if not asked else signal.SIGKILL)
            asked = True
        pid = pid or int(read_state(place).get("pid", 0))
        time.sleep(0.05)
    end_leftovers(place)
    return True


def open_doors() -> dict[str, str]:
    """The connections that this machine has: deployment and local address."""
    found = {}
    for place in CONNECT.glob(f"*/{socket.gethostname()}"):
        if processes.is_held(place / "lock") and (state := read_state(place)):
            found[place.parent.name] = f"http://{LOOPBACK}:{state['port']}"
    return found


def forget(name: str) -> None:
    """Delete what is remembered of a deployment's connections here: port, key, logs."""
    if not processes.is_held(directory(name) / "lock"):
        shutil.rmtree(directory(name), ignore_errors=True)


def end_leftovers(place: Path) -> bool:
    """End children whose keeper was killed, if they have not noticed themselves."""
    state = read_state(place)
    if state.get("boot") != processes.boot():
        return False
    left = [(int(pid), int(born)) for pid, born in state.get("children", []) if pid and born]
    return processes.end_sessions(left, LEFTOVERS_S) > 0


def read_state(place: Path) -> dict[str, Any]:
    """What the keeper last wrote, or nothing."""
    try:
        read: dict[str, Any] = json.loads((place / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return read
