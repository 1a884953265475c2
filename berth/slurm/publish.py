"""`berth publish`: a model on a port of another machine, by a reverse tunnel from there to the local door here."""

import getpass
import json
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from berth.errors import Exit, failed
from berth.host import processes
from berth.progress import Progress
from berth.slurm import snippets
from berth.slurm.connections import Connection, read_state
from berth.slurm.outlet import request
from berth.slurm.ports_table import HEADS, Row, Table
from berth.slurm.tunnel import LOOPBACK
from engine.phases import Phase

LISTENING_S = 40.0  # ssh gives up connecting after 15; once more after that
POLL_S = 0.3


@dataclass(frozen=True)
class Published:
    """A model on another machine: `url` and the files are that machine's."""

    connection: Connection
    destination: str
    port: int
    home: str
    rows: Sequence[Row]

    @property
    def url(self) -> str:
        """Where it answers on the other machine."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def _files(self) -> tuple[PurePosixPath, PurePosixPath]:
        place = PurePosixPath(self.home, ".berth", "published", str(self.port))
        return place / "api_key", place / "authorization"

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "deployment": self.connection.name,
            "to": self.destination,
            "port": self.port,
            "url": self.url,
            "model": self.connection.model,
            "key_file": str(self._files[0]),
            "published": [row.facts() for row in self.rows],
            **snippets.facts(self.url, self.connection.model, *self._files),
        }

    def words(self, attached: bool) -> str:
        """What a person reads once it answers there."""
        end = "Ctrl-C ends that, and the job runs on." if attached else "That ends with the job."
        table = "\n".join(f"  {line}" for line in _aligned([HEADS, *(row.cells() for row in self.rows)]))
        return (
            f"\n{self.connection.model} answers on {self.destination} at {self.url}/v1. {end}\n\n"
            f"Published there:\n{table}\n\nTo be run on {self.destination}:\n\n"
            f"{snippets.words(self.url, self.connection.model, *self._files)}\n"
        )


def target(text: str) -> tuple[str, int]:
    """`user@vm:6789` as destination and port; port 0 where none is given. Raises BerthError (exit code 2)."""
    found = re.fullmatch(r"(?P<to>[^\s:-][^\s:]*)(?::(?P<port>\d{1,5}))?", text)
    port = int(found["port"] or 0) if found else -1
    if not found or not (port == 0 or 1024 <= port < 65536):
        raise failed(f"--to {text}: not a machine and a port", "as in user@vm:6789, or user@vm", Exit.BAD_SETTING)
    return found["to"], port


def publish(connection: Connection, destination: str, port: int, progress: Progress) -> Published:
    """Make the model answer on that machine; with port 0 on one that is free there.

    What is published there already stays as it is. Raises BerthError: exit code 3 for a machine out of reach, 1 for
    a port that is taken and a tunnel that does not open.
    """
    table, who = Table(destination), f"{getpass.getuser()}@{socket.gethostname()}"
    file = request(connection.directory, destination)
    file.parent.mkdir(exist_ok=True, mode=0o700)
    now = _asked(file)
    if now and port in (0, now[0]):
        return Published(connection, destination, *now, table.rows())
    claim = table.claim(port, who, connection.name, connection.model)
    progress.show(Phase("opening the reverse tunnel", None, f"port {claim.port} of {destination}"))
    file.write_text(json.dumps({"to": destination, "port": claim.port, "home": claim.home}))
    try:
        _await_listening(connection, table, destination, claim.port)
    except BaseException:
        withdraw(connection, destination)
        raise
    rows = table.send_key(claim.port, (connection.directory / "api_key").read_text().strip())
    return Published(connection, destination, claim.port, claim.home, rows)


def _asked(file: Path) -> tuple[int, str] | None:
    """Port and home directory of what this connection publishes there already."""
    try:
        said = json.loads(file.read_text())
        return int(said["port"]), str(said["home"])
    except (OSError, ValueError, KeyError):
        return None


def _await_listening(connection: Connection, table: Table, destination: str, port: int) -> None:
    deadline = time.monotonic() + LISTENING_S
    while True:
        if any(row.port == port and row.up for row in table.rows()):
            return
        outlets = read_state(connection.directory).get("outlets", [])
        ours = [each for each in outlets if each["to"] == destination and each["port"] == port]
        said, hint = next(((each["trouble"], each["hint"]) for each in ours), ("", ""))
        if said or time.monotonic() > deadline:
            raise failed(said or f"{destination} does not listen on port {port}", hint or f"by hand: ssh {destination}")
        time.sleep(POLL_S)


def withdraw(connection: Connection, destination: str) -> None:
    """End what `publish` began, and wait until it has ended."""
    request(connection.directory, destination).unlink(missing_ok=True)
    deadline = time.monotonic() + LISTENING_S
    while time.monotonic() < deadline and processes.is_held(connection.directory / "lock"):
        if all(each["to"] != destination for each in read_state(connection.directory).get("outlets", [])):
            return
        time.sleep(POLL_S)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
