"""The script that keeps the table of published ports, as it runs on the other machine."""

import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from berth.slurm.ports_table import SCRIPT, _rows
from tests.support.waiting import free_port

TAKEN = 9


@dataclass
class Machine:
    """A machine whose table is in a directory of the test's own."""

    table: Path
    home: Path

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        text = SCRIPT.read_text().replace("/var/tmp/berth-ports", str(self.table))
        return subprocess.run(
            ["sh", "-c", text, "ports_table", *words],
            env={**os.environ, "HOME": str(self.home)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def claim(self, port: int, who: str = "alice@login", deployment: str = "demo") -> int | None:
        """The port that was given, or None."""
        done = self.run("claim", str(port), who, deployment, "a model")
        if done.returncode == TAKEN:
            return None
        assert done.returncode == 0, done.stderr
        return int(next(line for line in done.stdout.splitlines() if line.startswith("port\t")).split("\t")[1])


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "table", tmp_path / "home")


def old(file: Path) -> None:
    """Let a claim be as old as one whose tunnel had every chance to open."""
    cells = file.read_text().strip().split("\t")
    file.write_text("\t".join([*cells[:-1], str(int(time.time()) - 1000)]) + "\n")


def test_a_claim_is_in_the_table(machine: Machine) -> None:
    port = free_port()
    assert machine.claim(port) == port
    row = _rows(machine.run("list").stdout)[0]
    assert (row.port, row.model, row.deployment, row.who, row.up) == (port, "a model", "demo", "alice@login", False)


def test_the_directory_is_everybodys_and_each_file_its_owners(machine: Machine) -> None:
    port = free_port()
    machine.claim(port)
    assert machine.table.stat().st_mode & 0o7777 == 0o1777
    assert (machine.table / f"{port}.{os.getuid()}").stat().st_mode & 0o777 == 0o644


def test_a_port_that_was_claimed_a_moment_ago_is_taken_for_others_and_for_other_models(machine: Machine) -> None:
    port = free_port()
    machine.claim(port)
    assert machine.claim(port, who="bob@login") is None
    assert machine.claim(port, deployment="other") is None
    assert machine.claim(port) == port


def test_a_port_on_which_something_listens_is_taken_for_everybody(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert machine.claim(listener.getsockname()[1]) is None


def test_without_a_port_two_deployments_get_two(machine: Machine) -> None:
    first, second = machine.claim(0), machine.claim(0, deployment="other")
    assert first
    assert second
    assert first != second


def test_a_deployment_gets_its_last_port_again(machine: Machine) -> None:
    port = free_port()
    machine.claim(port)
    old(machine.table / f"{port}.{os.getuid()}")
    assert machine.claim(0) == port


def test_a_stale_claim_is_reclaimed_with_the_key_that_it_left(machine: Machine) -> None:
    port = free_port()
    machine.claim(port)
    assert machine.run("key", str(port), stdin="secret\n").returncode == 0
    assert (machine.home / f".berth/published/{port}/api_key").exists()
    old(machine.table / f"{port}.{os.getuid()}")
    assert machine.claim(port, who="bob@login") == port
    assert not (machine.home / f".berth/published/{port}").exists()


def test_the_key_is_for_its_owner_alone_and_comes_by_standard_input(machine: Machine) -> None:
    machine.run("key", "20000", stdin="secret\n")
    place = machine.home / ".berth/published/20000"
    assert {file.name: file.stat().st_mode & 0o777 for file in place.iterdir()} == {
        "api_key": 0o600,
        "authorization": 0o600,
    }
    assert (place / "authorization").read_text() == "Authorization: Bearer secret\n"


def test_a_release_takes_claim_and_key_away(machine: Machine) -> None:
    port = free_port()
    machine.claim(port)
    machine.run("key", str(port), stdin="secret\n")
    machine.run("release", str(port))
    assert list(machine.table.iterdir()) == []
    assert list((machine.home / ".berth/published").iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "x\ty\n", "20001\tm\tn\tw\ta[$(touch {home}/run)]\n", "$(touch {home}/run)\tm\tn\tw\t1\n", "\t\t\t\t\n"],
)
def test_a_file_that_somebody_else_planted_is_no_claim_and_runs_nothing(machine: Machine, text: str) -> None:
    machine.home.mkdir()
    machine.table.mkdir(mode=0o1777)
    (machine.table / "20001.4242").write_text(text.replace("{home}", str(machine.home)))
    assert machine.claim(0)
    assert machine.run("list").returncode == 0
    assert not (machine.home / "run").exists()


def test_a_planted_link_is_replaced_and_not_followed(machine: Machine, tmp_path: Path) -> None:
    port = free_port()
    precious = tmp_path / "precious"
    precious.write_text("kept")
    machine.table.mkdir(mode=0o1777)
    (machine.table / f"{port}.{os.getuid()}").symlink_to(precious)
    assert machine.claim(port) == port
    assert precious.read_text() == "kept"


def test_a_link_to_a_claim_is_no_claim(machine: Machine, tmp_path: Path) -> None:
    port = free_port()
    machine.table.mkdir(mode=0o1777)
    (tmp_path / "elsewhere").write_text(f"{port}\tm\tn\tw\t{int(time.time())}\n")
    (machine.table / f"{port}.4242").symlink_to(tmp_path / "elsewhere")
    assert _rows(machine.run("list").stdout) == []
