"""The lab's command lines: what they print, and what they refuse before they change anything."""

import os
import subprocess
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[1] / "lab"


def run(program: str, *arguments: str, lab: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BERTH_LAB_DIR": str(lab)}
    return subprocess.run([LAB / program, *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("program", ["docker-engine", "base-images", "slurm-cluster", "prometheus"])
def test_help_says_what_it_does_and_changes_nothing(program: str, tmp_path: Path) -> None:
    done = run(program, "--help", lab=tmp_path / "lab")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: tests/lab/")
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("arguments", [(), ("start",), ("up", "--purge"), ("down", "now")])
def test_bad_usage_is_exit_code_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert run("docker-engine", *arguments, lab=tmp_path / "lab").returncode == 2
    assert run("slurm-cluster", *arguments, lab=tmp_path / "lab").returncode == 2
    assert run("prometheus", *(arguments or ("start",)), lab=tmp_path / "lab").returncode == 2


@pytest.mark.parametrize("arguments", [("exec", "--node", "n9", "--", "true"), ("sync", "/tmp/elsewhere"), ("exec",)])
def test_what_the_cluster_does_not_have_is_bad_usage(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert run("slurm-cluster", *arguments, lab=tmp_path / "lab").returncode == 2


@pytest.mark.parametrize("arguments", [("exec", "--", "true"), ("sync",)])
def test_a_cluster_that_is_not_up_is_named_with_the_remedy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run("slurm-cluster", *arguments, lab=tmp_path / "lab")
    assert done.returncode == 3
    assert "slurm-cluster up" in done.stderr


def test_up_without_a_docker_engine_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-docker.sock")
    done = run("slurm-cluster", "up", lab=tmp_path / "lab")
    assert done.returncode == 3
    assert "docker-engine up" in done.stderr


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
