"""A host with systemd and rootless Podman, with this checkout's images; what alice runs there, and how she asks."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.demo.train import text
from tests.support.compose import ROOT, docker, needs_engine
from tests.support.waiting import wait_until

LAB = ROOT / "tests" / "lab" / "podman"
READY_SECONDS = 900  # a bound for hangs: real vLLM on two shared cores
QUESTION = "What is Deep Learning?"
ADDRESS = "http://127.0.0.1:9000"
IMAGES = {"BERTH_REGISTRY": "berth-test", "BERTH_VERSION": "checkout"}


def known_answer() -> str:
    """The demo model's answer, from the text that it was trained on."""
    return next(known.answer for known in text.load().known if QUESTION in known.ask)


def rendered(runtime: str, folder: Path) -> list[Path]:
    """The files of `berth render` for the CPU and the demo model, as a user makes them."""
    shell = {**os.environ, **IMAGES}
    words = ["--env", "env/cpu.env", "--env", "env/models/demo.env", "--to", str(folder)]
    subprocess.run([ROOT / "scripts/berth", "render", "--runtime", runtime, *words], env=shell, check=True, cwd=ROOT)
    return sorted(folder.iterdir())


def _hers(file: tarfile.TarInfo) -> tarfile.TarInfo:
    file.uid = file.gid = 1001
    file.uname = file.gname = ""
    return file


@dataclass(frozen=True)
class Host:
    """Alice's place on the host, which is a container of the Docker Engine at `engine`."""

    engine: str

    def words(self, *words: str) -> list[str]:
        """A command that runs hers, whatever DOCKER_HOST is by then: a test may have it name her own socket."""
        told = [f"DOCKER_HOST={self.engine}"] if self.engine else ["--unset=DOCKER_HOST"]
        return ["env", *told, str(LAB), "exec", "--", *words]

    def run(self, *words: str, given: str | None = None, check: bool = True) -> str:
        """Run one of her commands and return what it printed; raises AssertionError with its messages."""
        done = subprocess.run(self.words(*words), input=given, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{' '.join(words[:4])}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def put(self, files: Sequence[Path], folder: str) -> None:
        """Copy files into a folder of hers."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for file in files:
                archive.add(file, file.name, filter=_hers)
        unpack = self.words("sh", "-c", 'mkdir -p "$1" && tar -xC "$1"', "sh", folder)
        subprocess.run(unpack, input=packed.getvalue(), check=True)

    def streaming(self, tokens: int, *fields: str) -> list[str]:
        """The command that asks the service and prints the answer as it streams."""
        body = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": tokens}
        body |= {"temperature": 0, "stream": True, **{field: True for field in fields}}
        told = ["-H", "Content-Type: application/json", "--data", json.dumps(body)]
        return self.words("curl", "--silent", "--no-buffer", *told, f"{ADDRESS}/v1/chat/completions")

    def answer(self) -> str:
        """What the service streams to a question, put together."""
        done = subprocess.run(self.streaming(64), capture_output=True, text=True)
        events = [line.removeprefix("data: ") for line in done.stdout.splitlines() if line.startswith("data: ")]
        assert events[-1:] == ["[DONE]"], done.stdout
        choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    def state(self) -> str:
        """What the service says of the engine; nothing while it does not answer."""
        said = self.run("curl", "--silent", f"{ADDRESS}/ready", check=False)
        return str(json.loads(said)["state"]) if said else ""

    def kill(self, container: str) -> None:
        """Let its first process die, as a lack of memory would: `podman kill` counts as her wish that it stay away."""
        pid = self.run("podman", "inspect", "--format", "{{.State.Pid}}", container).strip()
        self.run("podman", "unshare", "kill", "-KILL", pid)

    def wait_until_ready(self) -> None:
        """Wait until a chat request would be answered."""
        wait_until(lambda: self.state() == "ready", READY_SECONDS, "the service being ready", 1.0)


@pytest.fixture(scope="session")
def host() -> Host:
    """The host, with this checkout's images in alice's Podman."""
    needs_engine()
    names = [f"{IMAGES['BERTH_REGISTRY']}/{image}:{IMAGES['BERTH_VERSION']}" for image in ("vllm-cpu", "llm")]
    for name in names:
        if docker("image", "inspect", name, check=False).strip() in ("", "[]"):
            pytest.skip(f"no image {name} here (scripts/test podman builds it)")
    made = subprocess.run([LAB, "up"], capture_output=True, text=True)
    if made.returncode == 3:
        pytest.skip(f"no Podman host can be had: {made.stderr.strip()}")
    assert made.returncode == 0, made.stderr
    loaded = subprocess.run([LAB, "load", *names], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    return Host(os.environ.get("DOCKER_HOST", ""))
