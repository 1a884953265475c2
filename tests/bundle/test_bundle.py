"""`berth bundle` with the real images and a fetched model: carried to a place without a network, and started there.

The place is a network namespace that has a loopback interface and nothing else, with a Docker Engine of its own.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.demo.train import text
from tests.support.compose import ROOT, docker, needs_engine
from tests.support.stub_hub import StubHub

MODEL = "tests/demo"
QUESTION = "What is Deep Learning?"
IMAGES = {"BERTH_REGISTRY": "berth-test", "BERTH_VERSION": "checkout"}
ASK = """
import sys, urllib.request as u
r = u.Request("http://127.0.0.1:9000/v1/chat/completions", sys.argv[1].encode(), {"Content-Type": "application/json"})
print(u.urlopen(r, timeout=300).read().decode())
"""


@dataclass(frozen=True)
class Island:
    """A network namespace without a network, and what runs in it."""

    name: str
    environ: dict[str, str]

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it; what it said is in the message when it fails."""
        # `ip netns exec` would also mount a /sys that has no control groups.
        command = ["nsenter", f"--net=/run/netns/{self.name}", *words]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{words[:3]}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
        return done

    def answer(self) -> dict[str, Any]:
        """What the service there says to the question; the client is Python's own."""
        body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 64, "temperature": 0}
        said: dict[str, Any] = json.loads(self.run(sys.executable, "-c", ASK, json.dumps(body)).stdout)
        return said


@pytest.fixture(scope="module")
def island(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Island]:
    """An engine of the same packages as tests/lab/docker-engine fetched, in a namespace and a folder of its own."""
    needs_engine()
    packages = Path(os.environ.get("BERTH_LAB_DIR") or Path.home() / ".cache/berth-lab") / "packages"
    if not (packages / "usr/sbin/dockerd").exists():
        pytest.skip("a second Docker Engine is made of the packages of tests/lab/docker-engine, which are not here")
    if docker("image", "inspect", "berth-test/vllm-cpu:checkout", check=False).strip() in ("", "[]"):
        pytest.skip("no image berth-test/vllm-cpu:checkout here (scripts/test bundle builds it)")
    lab, name = tmp_path_factory.mktemp("island"), f"berth-island-{os.getpid()}"
    shutil.copytree(packages, lab / "packages", symlinks=True, copy_function=os.link)
    clean = {"PATH": os.environ["PATH"], "HOME": str(lab), "BERTH_LAB_DIR": str(lab)}
    engine = {"DOCKER_HOST": f"unix://{lab / 'docker.sock'}", "DOCKER_CONFIG": str(lab / "config")}
    path = f"{lab / 'packages/usr/bin'}:{lab / 'packages/usr/sbin'}:{clean['PATH']}"
    there = Island(name, {**clean, **engine, "PATH": path})
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        there.run("ip", "link", "set", "lo", "up")
        there.run(ROOT / "tests/lab/docker-engine", "up")
        yield there
    finally:
        there.run(ROOT / "tests/lab/docker-engine", "down", check=False)
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture(scope="module")
def bundle(island: Island, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `berth bundle` makes of the images under test and a model that was fetched from a hub."""
    folder, home = tmp_path_factory.mktemp("carried") / "usb", tmp_path_factory.mktemp("home")
    shell = {**os.environ, **IMAGES, "HF_HOME": str(home), "LLM_VLLM_MODEL_NAME": MODEL}
    berth = [sys.executable, "-m", "berth"]
    with StubHub({MODEL: ROOT / "models" / "demo"}) as hub:
        subprocess.run([*berth, "fetch", MODEL], env={**shell, "HF_ENDPOINT": hub.address}, cwd=ROOT, check=True)
    words = ["bundle", str(folder), "--env", "env/cpu.env", "--env", "env/models/demo.env"]
    subprocess.run([*berth, *words], env=shell, cwd=ROOT, check=True)
    return folder


def test_it_starts_and_answers_where_there_is_no_network(island: Island, bundle: Path) -> None:
    assert not island.run("ip", "route", "show", "default").stdout.strip()
    island.run(bundle / "start")
    said = island.answer()
    assert said["choices"][0]["message"]["content"] == next(k.answer for k in text.load().known if QUESTION in k.ask)
    assert said["model"] == MODEL


def test_it_starts_nothing_once_a_byte_is_wrong(island: Island, bundle: Path) -> None:
    island.run("docker", "compose", "--project-name", "berth", "down", "--volumes")
    weights = next((bundle / "models").rglob("blobs/*"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    done = island.run(bundle / "start", check=False)
    assert done.returncode
    assert "FAILED" in done.stdout + done.stderr
    assert not island.run("docker", "ps", "--quiet").stdout
