"""Tokens and keys travel as files: never in what `docker inspect` or `docker compose config` shows, nor in a log."""

import json

import pytest

from tests.compose.conftest import MakeProject, WriteEnv
from tests.support.compose import Project, docker

pytestmark = pytest.mark.docker

TOKEN = "hf_canary0token"
KEY = "key-canary-1"


def everything_inspected(berth: Project) -> str:
    ids = docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={berth.name}").split()
    volumes = docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={berth.name}").split()
    assert len(ids) == 3
    return docker("inspect", *ids) + docker("volume", "inspect", *volumes)


def read(berth: Project, service: str, name: str) -> str:
    return berth.run("exec", "--no-TTY", service, "cat", f"/run/secrets/{name}", check=False).stdout


@pytest.mark.parametrize("place", ["shell", "device", "local", "own"])
def test_secrets_from_anywhere_arrive_as_files_and_show_nowhere(
    project: MakeProject, write_env: WriteEnv, place: str
) -> None:
    given = {"HF_TOKEN": TOKEN, "VLLM_API_KEY": KEY}
    lines = [f"{name}={value}" for name, value in given.items()]
    files = ["env/cpu.env", "env/models/demo.env"]
    if place == "device":
        compose_file = "COMPOSE_FILE=compose/base.yaml:compose/settings.yaml:compose/cpu.yaml"
        files[0] = write_env("device", compose_file, "LLM_DEVICE=cpu", *lines)
    elif place != "shell":
        files.append(write_env(place, *lines, names_itself=place == "local"))
    berth = project(*files, shell=given if place == "shell" else {})
    berth.run("up", "--detach")
    assert read(berth, "engine", "hf_token") == TOKEN
    assert read(berth, "engine", "vllm_api_key") == KEY
    assert read(berth, "llm", "vllm_api_key") == KEY
    started = berth.started_with()
    assert started["environ"]["HF_TOKEN_PATH"] == "/run/secrets/hf_token"
    assert started["environ"]["VLLM_API_KEY"] == KEY
    shown = [everything_inspected(berth), berth.run("config").stdout, json.dumps(started["argv"])]
    shown += [line for line in berth.logs().splitlines() if not line.startswith('{"argv"')]
    assert not [text for text in shown if TOKEN in text or KEY in text]


def test_the_service_never_sees_the_token_for_the_hub(project: MakeProject) -> None:
    berth = project("env/cpu.env", "env/models/demo.env", shell={"HF_TOKEN": TOKEN, "VLLM_API_KEY": KEY})
    berth.run("up", "--detach")
    assert berth.run("exec", "--no-TTY", "llm", "ls", "/run/secrets").stdout.split() == ["vllm_api_key"]


def test_secrets_can_be_absent_come_and_go(project: MakeProject) -> None:
    berth = project("env/cpu.env", "env/models/demo.env")
    berth.run("up", "--detach")
    assert berth.run("exec", "--no-TTY", "engine", "ls", "/run/secrets").stdout == ""
    assert "HF_TOKEN_PATH" not in berth.started_with()["environ"]
    berth.run("up", "--detach", shell={"HF_TOKEN": TOKEN})
    assert berth.started_with()["environ"]["HF_TOKEN_PATH"] == "/run/secrets/hf_token"
    assert read(berth, "engine", "hf_token") == TOKEN
    berth.run("up", "--detach")
    assert berth.run("exec", "--no-TTY", "engine", "ls", "/run/secrets").stdout == ""
    assert "HF_TOKEN_PATH" not in berth.started_with()["environ"]


def test_the_services_cannot_change_the_secrets(project: MakeProject) -> None:
    berth = project("env/cpu.env", "env/models/demo.env", shell={"VLLM_API_KEY": KEY})
    berth.run("up", "--detach")
    for service in ("engine", "llm"):
        done = berth.run("exec", "--no-TTY", service, "rm", "-f", "/run/secrets/vllm_api_key", check=False)
        assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HUGGING_FACE_HUB_TOKEN", "S3_SECRET_ACCESS_KEY"])
def test_a_secret_that_has_no_file_is_refused_from_a_file_and_stays_in_the_shell(
    project: MakeProject, write_env: WriteEnv, name: str
) -> None:
    local = write_env("local", f"{name}={TOKEN}")
    refused = project("env/cpu.env", "env/models/demo.env", local)
    assert refused.run("up", "--detach", check=False).returncode != 0
    assert f"{name} would be visible" in refused.logs("prepare")
    assert TOKEN not in refused.logs()
    berth = project("env/cpu.env", "env/models/demo.env", shell={name: TOKEN})
    berth.run("up", "--detach")
    assert TOKEN not in everything_inspected(berth)
