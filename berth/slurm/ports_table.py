"""The table of model and port on a machine that models are published to: see ports_table.sh, which runs there."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from berth.errors import BerthError, Problem, failed
from berth.slurm.cluster import Cluster, Completed

SCRIPT = Path(__file__).with_name("ports_table.sh")
_TAKEN = 9
HEADS = ("port", "model", "deployment", "by")


@dataclass(frozen=True)
class Row:
    """One published model. `up`: something listens on its port; else it was claimed a moment ago."""

    port: int
    model: str
    deployment: str
    who: str
    since: float
    up: bool

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return asdict(self)

    def cells(self) -> tuple[str, ...]:
        """What a person reads."""
        return str(self.port), self.model, self.deployment, self.who


@dataclass(frozen=True)
class Claim:
    """A port that is ours, and the home directory of the account there."""

    port: int
    home: str
    rows: list[Row]


class Table:
    """The table on one machine, reached by SSH."""

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self._machine = Cluster(destination)

    def claim(self, port: int, who: str, deployment: str, model: str) -> Claim:
        """Write down a port: the one asked for, with 0 the last one of this deployment or a free one.

        Raises BerthError: exit code 1 where it is taken, with who has it; 3 where the machine cannot be reached.
        """
        done = self._run("claim", str(port), who, _cell(deployment), _cell(model))
        rows = _rows(done.stdout)
        if done.code == _TAKEN:
            holder = next((row for row in rows if row.port == port), None)
            by = f"{holder.model}, published by {holder.who}" if holder else "another program there"
            raise failed(
                f"port {port} of {self.destination} is taken: {by}",
                f"choose another, or leave it out and a free one is found: --to {self.destination}",
            )
        said = dict(line.split("\t", 1) for line in done.stdout.splitlines() if line.startswith(("port\t", "home\t")))
        if done.code or len(said) < 2:
            raise failed(
                f"the table of ports on {self.destination} cannot be written: {done.last}", "see /var/tmp there"
            )
        return Claim(int(said["port"]), said["home"], rows)

    def release(self, port: int) -> None:
        """Strike out a port of ours, and delete the key there."""
        self._run("release", str(port))

    def send_key(self, port: int, key: str) -> list[Row]:
        """Put the key where this account alone can read it; returns the table."""
        done = self._run("key", str(port), given=f"{key}\n".encode())
        if done.code:
            raise failed(f"the key cannot be written on {self.destination}: {done.last}", "see ~/.berth there")
        return _rows(done.stdout)

    def rows(self) -> list[Row]:
        """What is published there."""
        return _rows(self._run("list").stdout)

    def _run(self, *words: str, given: bytes | None = None) -> Completed:
        # One word for the remote shell: it is told nothing that is secret, since others can read it there.
        command = ["sh", "-c", SCRIPT.read_text(), "ports_table", *words]
        try:
            return self._machine.run(command, given, check=False)
        except BerthError as error:
            problem = error.problems[0]
            sentence = problem.sentence.replace("the login node ", "", 1)
            raise BerthError(Problem(sentence, problem.hint, problem.exit_code)) from error


def _rows(said: str) -> list[Row]:
    """The rows that a script printed; of two claims to one port, the later counts."""
    found: dict[int, Row] = {}
    for line in said.splitlines():
        kind, *cells = line.split("\t")
        if kind == "row" and len(cells) == 6:
            port, model, deployment, who, since, state = cells
            row = Row(int(port), model, deployment, who, float(since), state == "up")
            if row.port not in found or found[row.port].since < row.since:
                found[row.port] = row
    return sorted(found.values(), key=lambda row: row.port)


def _cell(text: str) -> str:
    return " ".join(text.split()) or "?"


def by_hand(destination: str) -> str:
    """The command that shows the table without Berth."""
    return f"ssh {shlex.quote(destination)} 'cat /var/tmp/berth-ports/*'"
