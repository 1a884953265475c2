"""`berth up --hosts`: two Docker hosts, an engine on each, serve one model with real vLLM, through SSH alone.

The hosts are tests/lab/docker-hosts. The tests run in this order, on one deployment; the last one takes it down.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from berth.hosts import memory
from tests.stack.test_stack import known_answer
from tests.support.compose import ROOT, docker, environment, needs_engine
from tests.support.waiting import free_port, wait_until

# Two engines that start on this machine's few cores, after images of 2 GB have been brought to each of two hosts.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(1500)]

LAB = ROOT / "tests" / "lab" / "docker-hosts"
HEAD, FOLLOWER = "host-a", "host-b"
QUESTION = "What is Deep Learning?"
READY_SECONDS = 900  # a bound for hangs
# Compilation is left out, and no thread is bound to a core: both hosts share this machine's few.
ENGINE = {
    "VLLM_TP_SIZE": "2", "VLLM_MAX_MODEL_LEN": "512", "VLLM_MAX_NUM_SEQS": "4", "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENFORCE_EAGER": "true", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
}  # fmt: skip


@dataclass
class Hosts:
    """The two machines, and the command line of this one."""

    environ: dict[str, str]

    def berth(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run scripts/berth's program; its output is in the message when it fails."""
        command = [sys.executable, "-m", "berth", *words]
        done = subprocess.run(command, cwd=ROOT, env=self.environ, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"berth {words[0]}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    def on(self, host: str, *words: str) -> str:
        """What a command of docker says on a host; it need not succeed."""
        return docker("exec", f"berth-hosts-{host}", "docker", *words, check=False)

    def log(self, host: str) -> str:
        """All that the engine of a host has said."""
        command = ["docker", "exec", f"berth-hosts-{host}", "docker", "logs", self.engine]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout

    def ask(self, question: str) -> dict[str, Any]:
        """The service's answer, asked on the head, where it listens on loopback."""
        body = {
            "model": "demo",
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 64,
            "temperature": 0,
        }
        program = (
            "import sys, urllib.request as u;"
            "r = u.Request('http://127.0.0.1:9000/v1/chat/completions', sys.argv[1].encode(),"
            " {'Content-Type': 'application/json'});"
            "print(u.urlopen(r, timeout=120).read().decode())"
        )
        said: dict[str, Any] = json.loads(
            self.on(HEAD, "exec", f"{self.project}-llm-1", "python", "-c", program, json.dumps(body))
        )
        return said

    @property
    def project(self) -> str:
        """Compose's project."""
        return self.environ["COMPOSE_PROJECT_NAME"]

    @property
    def engine(self) -> str:
        """The name of the engine's container, the same on both hosts."""
        return f"{self.project}-engine-1"

    def workers(self, host: str) -> list[str]:
        """The processes of vLLM that run on a host."""
        listed = docker("exec", f"berth-hosts-{host}", "ps", "-eo", "args", check=False).splitlines()
        return [line for line in listed if "VLLM::" in line]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """The machines, with the images; `berth up --hosts` has returned."""
    needs_engine()
    images = {name: os.environ.get(name, default) for name, default in _IMAGES.items()}
    tags = [f"{images['BERTH_REGISTRY']}/{image}:{images['BERTH_VERSION']}" for image in ("vllm-cpu", "llm")]
    for tag in tags:
        if docker("image", "inspect", tag, check=False).strip() in ("", "[]"):
            pytest.skip(f"no image {tag} here (scripts/test stack builds it)")
    made = subprocess.run([LAB, "up"], capture_output=True, text=True, env={**os.environ})
    if made.returncode == 3:
        pytest.skip(f"no Docker hosts can be had: {made.stderr.strip()}")
    assert made.returncode == 0, made.stderr
    folder = tmp_path_factory.mktemp("hosts")
    config = subprocess.run([LAB, "env"], capture_output=True, text=True, check=True).stdout.partition("=")[2].strip()
    ssh = folder / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {config} "$@"\n')
    ssh.chmod(0o755)
    shell = {
        **environment({}), **ENGINE, **images, "PATH": f"{folder}:{os.environ['PATH']}",
        "COMPOSE_PROJECT_NAME": "berth-hosts-test", "LLM_USVC_PORT": str(free_port()),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'microservice'}",
    }  # fmt: skip
    found = Hosts(shell)
    try:
        found.berth(*UP, "-d", "--timeout", str(READY_SECONDS))
        yield found
    finally:
        found.berth("down", "--hosts", f"{HEAD},{FOLLOWER}", check=False)
        subprocess.run([LAB, "down"], capture_output=True, env={**os.environ})
        memory.forget()  # also where `down` failed: the next tests' `berth` would look for these hosts


_IMAGES = {"BERTH_REGISTRY": "berth-test", "BERTH_VERSION": "checkout"}
UP = ("up", "--hosts", f"{HEAD},{FOLLOWER}", "--env", "env/cpu.env", "--env", "env/models/demo.env")


def test_two_hosts_answer_as_one(hosts: Hosts) -> None:
    assert hosts.ask(QUESTION)["choices"][0]["message"]["content"] == known_answer(QUESTION)
    for rank, host in enumerate((HEAD, FOLLOWER)):
        log = hosts.log(host)
        assert f"world_size=2 rank={rank} local_rank=0" in log or f"rank {rank} in world size 2" in log, log[-3000:]
        assert hosts.workers(host)


def test_only_the_service_is_open_and_only_on_the_heads_loopback(hosts: Hosts) -> None:
    listed = docker("exec", f"berth-hosts-{HEAD}", "ss", "-ltnH").split("\n")
    ports = {line.split()[3] for line in listed if line}
    assert f"127.0.0.1:{hosts.environ['LLM_USVC_PORT']}" in ports
    assert not {port for port in ports if port.endswith((":8008", ":8000"))}
    assert "llm" not in hosts.on(FOLLOWER, "ps", "--format", "{{.Names}}")


def test_status_and_logs_tell_of_both(hosts: Hosts) -> None:
    said = json.loads(hosts.berth("status", "--runtime", "hosts", "--json").stdout)
    assert (said["state"], said["ready"], said["model"]) in (("running", True, "demo"), ("starting", True, "demo"))
    assert {part["name"] for part in said["parts"]} == {f"engine on {HEAD}", f"llm on {HEAD}", f"engine on {FOLLOWER}"}
    lines = hosts.berth("logs", "engine", "-n", "5", "--runtime", "hosts").stdout.splitlines()
    assert {line.partition(" engine")[0] for line in lines} == {HEAD, FOLLOWER}


def test_what_is_up_already_is_found(hosts: Hosts) -> None:
    assert "already running" in hosts.berth(*UP, "-d").stderr


def test_the_head_is_killed_and_the_follower_ends_with_it(hosts: Hosts) -> None:
    before = hosts.workers(FOLLOWER)
    assert before
    hosts.on(HEAD, "kill", hosts.engine)
    # It takes less than 15 s; the bound is for hangs, since other tests load the machine.
    wait_until(lambda: not hosts.workers(FOLLOWER), 60, "the end of the follower's processes", 0.2)
    assert "has ended, and so does this node" in hosts.log(FOLLOWER)


def test_down_leaves_nothing_but_the_volumes(hosts: Hosts) -> None:
    hosts.berth("down")
    for host in (HEAD, FOLLOWER):
        assert hosts.on(host, "ps", "--all", "--quiet") == ""
        assert f"{hosts.project}_models" in hosts.on(host, "volume", "ls", "--quiet")
    assert not Path(ROOT, ".berth", "run", "hosts.json").exists()
