"""The operator's command line over real Compose, with stand-in images: what it starts, sees, stops and leaves alone."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.compose import ROOT, STAND_IN, Project, docker, environment, needs_engine, stand_in_images
from tests.support.waiting import free_port, wait_until

pytestmark = pytest.mark.docker

Berth = Callable[..., subprocess.CompletedProcess[str]]
FILES = ("env/cpu.env", "env/models/demo.env")
ENV = [word for file in FILES for word in ("--env", str(ROOT / file))]


@pytest.fixture
def stack() -> Iterator[Project]:
    """A project of stand-ins that is not up yet."""
    needs_engine()
    stand_in_images()
    ports = {"LLM_VLLM_PORT": str(free_port()), "LLM_USVC_PORT": str(free_port())}
    with Project(FILES, {**STAND_IN, **ports}) as project:
        project.shell["COMPOSE_PROJECT_NAME"] = project.name
        yield project


@pytest.fixture
def berth(stack: Project, tmp_path: Path) -> Berth:
    """Run `berth VERB --runtime compose …` in the project's environment, from some other folder."""

    def run(verb: str, *words: str, **shell: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "berth", verb, "--runtime", "compose", *words],
            cwd=tmp_path,
            env={**environment({**stack.shell, **shell}), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def containers(project: Project) -> list[str]:
    label = f"label=com.docker.compose.project={project.name}"
    return docker("ps", "--all", "--quiet", "--filter", label).split()


def test_a_dry_run_prints_the_very_command(berth: Berth, stack: Project) -> None:
    done = berth("up", "--dry-run", *ENV)
    assert done.stdout.splitlines() == [
        f"cd {ROOT} && docker compose --env-file env/cpu.env --env-file env/models/demo.env up --detach --no-build"
    ]
    assert containers(stack) == []


def test_render_is_the_compose_model_with_secrets_masked(berth: Berth) -> None:
    done = berth("render", *ENV, HF_TOKEN="hf_" + "x" * 20, VLLM_MAX_NUM_SEQS="7")
    assert done.returncode == 0, done.stderr
    assert 'VLLM_MAX_NUM_SEQS: "7"' in done.stdout
    assert "hf_x" not in done.stdout


def test_a_stack_that_is_never_ready_is_stopped_with_nothing_left(berth: Berth, stack: Project) -> None:
    done = berth("up", "-d", "--timeout", "3", *ENV)  # the stand-in for the service has no /ready
    assert done.returncode == 4, done.stderr
    assert "not ready within 3 s" in done.stderr
    assert containers(stack) == []


def test_what_compose_started_by_hand_is_seen_read_and_stopped(berth: Berth, stack: Project) -> None:
    stack.run("up", "--detach")
    status = json.loads(berth("status", "--json").stdout)
    assert (status["runtime"], status["device"], status["model"]) == ("compose", "cpu", "demo")
    assert status["endpoint"]["service"] == f"http://127.0.0.1:{stack.shell['LLM_USVC_PORT']}"
    assert berth("status").returncode == 4
    wait_until(lambda: '{"argv"' in berth("logs", "engine").stdout, 60, "the engine's line")
    assert all(line.startswith(("engine | ", "llm    | ")) for line in berth("logs").stdout.splitlines())
    assert berth("down").stdout == "stopped\n"
    assert containers(stack) == []
    assert berth("down").stdout == "nothing was running\n"


def test_a_stack_whose_engine_has_ended_is_degraded_and_can_be_stopped(berth: Berth, stack: Project) -> None:
    stack.run("up", "--detach")
    docker("kill", f"{stack.name}-engine-1")  # Docker does not restart what was stopped by hand
    status = json.loads(berth("status", "--json").stdout)
    assert (status["state"], status["ready"]) == ("degraded", False)
    assert berth("down").stdout == "stopped\n"
    assert containers(stack) == []


def test_another_project_of_the_same_checkout_is_left_alone(berth: Berth, stack: Project) -> None:
    stack.run("up", "--detach")
    assert berth("status", COMPOSE_PROJECT_NAME="berth-nobody").returncode == 1
    assert berth("down", COMPOSE_PROJECT_NAME="berth-nobody").stdout == "nothing was running\n"
    assert containers(stack)


def test_an_engine_that_ends_is_explained_and_nothing_is_left(berth: Berth, stack: Project, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE\nFROM ${BASE}\n"
        'ENTRYPOINT ["sh", "-c", "case $* in *prepare*) exec \\"$@\\";; esac; '
        'echo ValueError: no room; exit 1", "sh"]\n'
    )
    image = f"{STAND_IN['BERTH_REGISTRY']}/vllm-cpu"
    docker("build", "-q", "--tag", f"{image}:ends-{os.getpid()}", f"--build-arg=BASE={image}:test", str(tmp_path))
    docker("tag", f"{STAND_IN['BERTH_REGISTRY']}/llm:test", f"{STAND_IN['BERTH_REGISTRY']}/llm:ends-{os.getpid()}")
    try:
        done = berth("up", "-d", *ENV, BERTH_VERSION=f"ends-{os.getpid()}")
    finally:
        for name in ("vllm-cpu", "llm"):
            docker("rmi", "--force", f"{STAND_IN['BERTH_REGISTRY']}/{name}:ends-{os.getpid()}")
    assert done.returncode == 1
    assert "the engine ended with exit code 1: ValueError: no room" in done.stderr
    assert containers(stack) == []


def test_no_engine_to_reach_is_said_with_the_remedy(berth: Berth, tmp_path: Path) -> None:
    done = berth("up", *ENV, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 3
    assert "no Docker Engine answers" in done.stderr
    assert "--runtime native" in done.stderr


def test_an_old_compose_is_said_with_both_versions(berth: Berth, tmp_path: Path) -> None:
    fake = tmp_path / "bin/docker"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho v2.29.7\n")
    fake.chmod(0o755)
    done = berth("up", *ENV, PATH=f"{fake.parent}:{os.environ['PATH']}")
    assert done.returncode == 3
    assert "Compose is version 2.29, and 2.30 or newer is needed" in done.stderr
