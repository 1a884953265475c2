"""What the containers may do and keep, seen from inside real ones."""

import os
import stat
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from berth.runtimes import NOTHING
from berth.runtimes.compose import Runtime
from tests.compose.conftest import MakeProject, WriteEnv
from tests.support.compose import Project, docker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.docker


def inside(berth: Project, service: str, script: str) -> subprocess.CompletedProcess[str]:
    return berth.run("exec", "--no-TTY", service, "sh", "-c", script, check=False)


def volumes(berth: Project) -> set[str]:
    listed = docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={berth.name}")
    return {name.removeprefix(f"{berth.name}_") for name in listed.split()}


def test_processes_have_no_privileges_and_write_only_where_named(project: MakeProject) -> None:
    berth = project("env/cpu.env", "env/models/demo.env")
    berth.run("up", "--detach")
    for service in ("engine", "llm"):
        status = inside(berth, service, "cat /proc/self/status").stdout
        assert "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert inside(berth, service, "id -u").stdout.strip() != "0"
        assert "Read-only file system" in inside(berth, service, "touch /opt/berth/x").stderr
        assert inside(berth, service, "touch /tmp/x").returncode == 0
    for place in ("/cache/huggingface", "/cache/vllm", "/home/berth"):
        assert inside(berth, "engine", f"touch {place}/x").returncode == 0, place


def test_what_a_batch_runs_in_is_not_taken_for_the_engine(
    project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    berth = project("env/cpu.env", "env/models/demo.env")
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", berth.name)
    berth.run("run", "--detach", "engine")
    assert "engine" not in Runtime(NOTHING).parts()
    berth.run("up", "--detach", "engine")
    assert "-run-" not in str(Runtime(NOTHING).parts()["engine"].name)
    berth.run("down", "--timeout", "0", "--remove-orphans")


def test_compiled_code_can_be_loaded_from_the_caches(project: MakeProject) -> None:
    berth = project("env/cpu.env", "env/models/demo.env")
    berth.run("up", "--detach", "engine")
    for place in ("/cache/vllm", "/cache/huggingface", "/home/berth", "/tmp"):
        run = f"cp /bin/true {place}/program && {place}/program"
        assert inside(berth, "engine", run).returncode == 0, place


def test_what_the_image_says_of_its_places_survives(project: MakeProject) -> None:
    """Docker takes an image's variable away when Compose lists its name without a value."""
    berth = project("env/cpu.env", "env/models/demo.env")
    berth.run("up", "--detach", "engine")
    environ = berth.started_with()["environ"]
    assert (environ["HF_HOME"], environ["VLLM_CACHE_ROOT"]) == ("/cache/huggingface", "/cache/vllm")


def test_the_engine_works_under_a_user_that_the_image_does_not_know(project: MakeProject, tmp_path: Path) -> None:
    berth = project("env/cpu.env", "env/models/demo.env", shell={"VLLM_API_KEY": "key-canary-2"})
    other = tmp_path / "user.yaml"
    other.write_text('services: {engine: {user: "1234567:0"}, prepare: {user: "7654321:0"}}')
    files = "compose/base.yaml:compose/settings.yaml:compose/cpu.yaml"
    berth.run("up", "--detach", "engine", shell={"COMPOSE_FILE": f"{files}:{other}"})
    assert berth.started_with()["argv"][0] == "serve"
    assert inside(berth, "engine", "touch /cache/vllm/x /home/berth/x && cat /run/secrets/*").stdout == "key-canary-2"
    assert "starting vLLM" in inside(berth, "engine", "cat /run/berth/phase.json").stdout


def test_the_service_reads_what_the_engine_says_of_its_start(project: MakeProject) -> None:
    berth = project("env/cpu.env", "env/models/demo.env")
    berth.run("up", "--detach")
    started = berth.started_with()
    assert started["environ"]["VLLM_LOGGING_STREAM"] == "ext://engine.announce.stdout"
    assert "starting vLLM" in inside(berth, "llm", "cat $LLM_PHASE_FILE").stdout
    # The lock that tells a living engine is seen across the two containers, and goes with the engine.
    free = "flock --nonblock --shared $LLM_PHASE_FILE true"
    assert inside(berth, "llm", free).returncode == 1
    assert "Read-only file system" in inside(berth, "llm", "touch $LLM_PHASE_FILE").stderr
    berth.run("stop", "engine")
    assert inside(berth, "llm", free).returncode == 0


def test_ports_are_on_loopback_and_bind_addr_opens_the_service_only(project: MakeProject) -> None:
    berth = project("env/cpu.env", "env/models/demo.env")
    berth.run("up", "--detach")
    for service, port in (("engine", "8008/tcp"), ("llm", "9000/tcp")):
        assert [bound["HostIp"] for bound in berth.inspect(service)["NetworkSettings"]["Ports"][port]] == ["127.0.0.1"]
    berth.run("up", "--detach", shell={"BIND_ADDR": "0.0.0.0", "LLM_ALLOW_NO_KEY": "true"})
    assert berth.inspect("engine")["NetworkSettings"]["Ports"]["8008/tcp"][0]["HostIp"] == "127.0.0.1"
    assert berth.inspect("llm")["NetworkSettings"]["Ports"]["9000/tcp"][0]["HostIp"] == "0.0.0.0"


def test_the_service_answers_while_the_engine_is_not_ready(project: MakeProject, tmp_path: Path) -> None:
    loading = tmp_path / "loading.yaml"
    loading.write_text("services: {engine: {command: [sleep, infinity]}}")
    files = "compose/base.yaml:compose/settings.yaml:compose/cpu.yaml"
    berth = project("env/cpu.env", "env/models/demo.env", shell={"COMPOSE_FILE": f"{files}:{loading}"})
    berth.run("up", "--detach")

    def answer() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{berth.shell['LLM_USVC_PORT']}/", timeout=5) as reply:
                return int(reply.status)
        except (urllib.error.URLError, ConnectionError):
            return 0

    assert wait_until(answer, 60, "an answer of the service") == 200
    assert berth.inspect("engine")["State"]["Health"]["Status"] == "starting"


def test_down_keeps_what_was_downloaded_and_down_v_deletes_it(project: MakeProject) -> None:
    berth = project("env/cpu.env", "env/models/demo.env")
    berth.run("up", "--detach", "engine")
    inside(berth, "engine", "echo kept > /cache/huggingface/file; echo kept > /cache/vllm/file")
    berth.run("down", "--timeout", "5")
    assert volumes(berth) == {"models", "compiled", "secrets"}
    berth.run("up", "--detach", "engine")
    assert inside(berth, "engine", "cat /cache/huggingface/file /cache/vllm/file").stdout == "kept\nkept\n"
    berth.run("down", "--volumes", "--timeout", "5")
    assert volumes(berth) == set()


def test_a_folder_of_this_machine_can_hold_the_models(project: MakeProject, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    folder.chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
    berth = project("env/cpu.env", "env/models/demo.env", shell={"BERTH_CACHE": str(folder)})
    berth.run("up", "--detach", "engine")
    inside(berth, "engine", "echo here > /cache/huggingface/file")
    assert (folder / "file").read_text() == "here\n"
    os.remove(folder / "file")


def test_the_engine_ends_on_the_first_sigterm(project: MakeProject) -> None:
    berth = project("env/cpu.env", "env/models/demo.env")
    berth.run("up", "--detach", "engine")
    berth.started_with()
    berth.run("stop", "engine")
    state = berth.inspect("engine")["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (143, False)


def test_limits_of_cpu_and_shared_memory_come_from_the_env_files(project: MakeProject, write_env: WriteEnv) -> None:
    local = write_env("local", "BERTH_CPUS=0.5", "BERTH_CPUSET=0", "BERTH_SHM_SIZE=1gb")
    berth = project("env/cpu.env", "env/models/demo.env", local)
    berth.run("up", "--detach", "engine")
    limits = berth.inspect("engine")["HostConfig"]
    assert (limits["NanoCpus"], limits["CpusetCpus"], limits["ShmSize"]) == (500_000_000, "0", 1 << 30)
