"""The private Docker Engine's command line: what it prints, and what it refuses before it changes anything."""

import os
import subprocess
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[1] / "lab"


def run(program: str, *arguments: str, lab: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BERTH_LAB_DIR": str(lab)}
    return subprocess.run([LAB / program, *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("program", ["docker-engine", "base-images"])
def test_help_says_what_it_does_and_changes_nothing(program: str, tmp_path: Path) -> None:
    done = run(program, "--help", lab=tmp_path / "lab")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: tests/lab/")
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("arguments", [(), ("start",), ("up", "--purge"), ("down", "now")])
def test_bad_usage_is_exit_code_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert run("docker-engine", *arguments, lab=tmp_path / "lab").returncode == 2


def test_env_names_the_socket_of_this_lab_even_from_a_folder_with_blanks(tmp_path: Path) -> None:
    lab = tmp_path / "my lab"
    lines = run("docker-engine", "env", lab=lab).stdout
    done = subprocess.run(["bash", "-c", f'{lines} printf %s "$DOCKER_HOST"'], capture_output=True, text=True)
    assert done.stdout == f"unix://{lab}/docker.sock"


def test_down_without_up_does_nothing(tmp_path: Path) -> None:
    done = run("docker-engine", "down", lab=tmp_path / "lab")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may start a private engine; the refusal is for others")
def test_up_without_root_is_refused_with_the_remedy(tmp_path: Path) -> None:
    done = run("docker-engine", "up", lab=tmp_path / "lab")
    assert done.returncode == 3
    assert "sudo" in done.stderr
