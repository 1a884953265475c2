"""A login node reached by SSH, played by a shell."""

from pathlib import Path

import pytest

from berth.slurm.cluster import Cluster

_SSH = """#!/bin/sh
echo 'Welcome to the cluster. Maintenance on Tuesday.'
for last; do :; done
exec sh -c "$last"
"""


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A login node whose shell greets everybody."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(_SSH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    return Cluster("me@login")


def test_a_greeting_of_the_login_shell_is_no_part_of_what_a_program_says(login: Cluster) -> None:
    assert login.run(["echo", "a b", "$HOME"]).stdout == "a b $HOME\n"


def test_a_greeting_is_no_part_of_a_file(login: Cluster, tmp_path: Path) -> None:
    data = bytes(range(256))
    login.write(f"{tmp_path}/some/file", data)
    assert (tmp_path / "some" / "file").read_bytes() == data
    assert login.read(f"{tmp_path}/some/file") == data
    assert login.read(f"{tmp_path}/nothing") is None


def test_exit_code_and_complaint_arrive(login: Cluster) -> None:
    done = login.run(["sh", "-c", "echo no >&2; exit 5"], check=False)
    assert (done.code, done.last) == (5, "no")
