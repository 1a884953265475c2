"""The same Compose files behind Podman's socket, with stand-ins: settings arrive, secrets are kept apart."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.podman.conftest import LAB, Host
from tests.support.compose import STAND_IN, Project, docker, stand_in_images
from tests.support.waiting import free_port

FILES = "compose/base.yaml:compose/settings.yaml:compose/cpu.yaml:compose/podman.yaml"


@pytest.fixture
def project(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    stand_in_images()
    names = [f"{STAND_IN['BERTH_REGISTRY']}/{image}:{STAND_IN['BERTH_VERSION']}" for image in ("vllm-cpu", "llm")]
    subprocess.run([LAB, "load", *names], check=True)
    pid = docker("inspect", "--format", "{{.State.Pid}}", "berth-podman").strip()
    monkeypatch.setenv("DOCKER_HOST", f"unix:///proc/{pid}/root/run/user/1001/podman/podman.sock")
    ports = {"LLM_VLLM_PORT": str(free_port()), "LLM_USVC_PORT": str(free_port())}
    shell = {"COMPOSE_FILE": FILES, "VLLM_API_KEY": "sesame", "HF_TOKEN": "hf_of-the-engine", **ports, **STAND_IN}
    with Project(["env/cpu.env", "env/models/demo.env"], shell) as project:
        project.run("up", "--detach", "--no-build")
        yield project


def test_settings_and_secrets_reach_the_services_that_they_are_for(project: Project, host: Host) -> None:
    started = project.started_with()
    assert started["argv"][started["argv"].index("--served-model-name") + 1] == "demo"
    assert started["environ"]["VLLM_API_KEY"] == "sesame"
    inspected = host.run("podman", "inspect", f"{project.name}-engine-1")
    assert "sesame" not in inspected

    def secrets(service: str) -> set[str]:
        return set(host.run("podman", "exec", f"{project.name}-{service}-1", "ls", "/run/secrets").split())

    assert secrets("engine") == {"hf_token", "vllm_api_key"}
    assert secrets("llm") == {"vllm_api_key"}
