"""The keys of the service's clients under Compose: asked for where others can reach it, and read as they change."""

from pathlib import Path

import pytest

from berth import keysfile
from tests.compose.conftest import MakeProject, WriteEnv
from tests.support.compose import Project, docker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.docker

FILES = ("env/cpu.env", "env/models/demo.env")
EVERYBODY = {"BIND_ADDR": "0.0.0.0"}


def seen(berth: Project) -> str:
    """The file as the service's container sees it."""
    return berth.run("exec", "--no-TTY", "llm", "cat", "/run/llm_api_keys").stdout


def refused(berth: Project) -> str:
    """Nothing starts; return what the first step said."""
    assert berth.run("up", "--detach", check=False).returncode != 0
    running = docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={berth.name}")
    assert running == ""
    return berth.logs("prepare")


@pytest.mark.parametrize("place", ["shell", "file"])
def test_nothing_starts_where_others_could_come_in_without_a_key(
    project: MakeProject, write_env: WriteEnv, place: str
) -> None:
    if place == "shell":
        berth = project(*FILES, shell=EVERYBODY)
    else:
        berth = project(*FILES, write_env("own", "BIND_ADDR=0.0.0.0"))
    said = refused(berth)
    assert "BIND_ADDR=0.0.0.0 lets other machines in" in said
    assert "LLM_API_KEYS_FILE" in said


def test_the_containers_read_a_file_of_another_user_and_see_what_changes_in_it(
    project: MakeProject, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    keysfile.add(file, "alice")
    file.chmod(0o644)
    berth = project(*FILES, shell={**EVERYBODY, "LLM_API_KEYS_FILE": str(file)})
    berth.run("up", "--detach")
    assert seen(berth) == file.read_text()
    environ = dict(line.partition("=")[::2] for line in berth.inspect("llm")["Config"]["Env"])
    assert environ["LLM_API_KEYS_FILE"] == "/run/llm_api_keys"
    assert environ["BIND_ADDR"] == "0.0.0.0"
    keysfile.add(file, "bob")
    keysfile.remove(file, "alice")
    wait_until(lambda: seen(berth) == file.read_text(), 10, "the container sees the change")
    file.chmod(0o666)
    done = berth.run("exec", "--no-TTY", "llm", "sh", "-c", "echo >> /run/llm_api_keys", check=False)
    assert "Read-only file system" in done.stderr


def test_keys_that_the_service_could_not_read_are_refused_before_anything_starts(
    project: MakeProject, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    keysfile.add(file, "alice")
    file.chmod(0o600)
    said = refused(project(*FILES, shell={"LLM_API_KEYS_FILE": str(file)}))
    assert "cannot be read by the containers' user" in said
    assert "chmod 644" in said


def test_a_file_that_is_not_there_is_compose_to_refuse_and_not_made(project: MakeProject, tmp_path: Path) -> None:
    file = tmp_path / "none"
    done = project(*FILES, shell={"LLM_API_KEYS_FILE": str(file)}).run("up", "--detach", check=False)
    assert done.returncode != 0
    assert str(file) in done.stderr
    assert not file.exists()
