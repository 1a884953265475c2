"""A copy of the checkout in a folder of its own, so that tests share neither state nor ports with anything."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("berth", "engine", "env", "compose", "microservice", "requirements", "scripts", "models")
START_S = 180.0  # a bound for hangs: other tests run beside these


@dataclass
class Kit:
    """The copy, and how to use it: `berth("up", "-d")` runs the command line there."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "berth", *words]

    def berth(self, *words: str, timeout: float = START_S, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        return subprocess.run(
            self.command(*words),
            cwd=self.root,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def begin(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Start a verb that stays; its output goes to the file `output`."""
        with open(self.root / "output", "w") as output:
            process = subprocess.Popen(
                self.command(*words),
                cwd=self.root,
                env={**self.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
            )
        self.running.append(process)
        return process

    @property
    def output(self) -> str:
        return (self.root / "output").read_text()

    def fake(self, **how: Any) -> None:
        """Say how the stand-in for the engine behaves from its next start on."""
        (self.root / "fake.json").write_text(json.dumps(how))

    @property
    def state(self) -> dict[str, Any]:
        """What the supervisor last wrote."""
        try:
            read: dict[str, Any] = json.loads((self.root / ".berth/run/state.json").read_text())
        except FileNotFoundError:
            return {}
        return read

    @property
    def service(self) -> str:
        return f"http://127.0.0.1:{self.environ['LLM_USVC_PORT']}"

    def processes(self) -> dict[int, str]:
        """Every process that names this copy on its command line: nothing else has its path."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                except OSError:
                    continue
                # One that has ended keeps its directory a moment longer than its words.
                if words and (str(self.root) in words or str(self.root) in _directory(entry)):
                    found[int(entry.name)] = words
        return found

    def gone(self) -> bool:
        """Whether nothing of this copy runs any more."""
        return not self.processes()


def _directory(entry: Path) -> str:
    try:
        return os.readlink(entry / "cwd")
    except OSError:
        return ""


def copy(target: Path) -> Path:
    """Copy what `berth` needs of the checkout."""
    for part in PARTS:
        shutil.copytree(ROOT / part, target / part, ignore=shutil.ignore_patterns("__pycache__", "local.env"))
    return target


def make(tmp_path: Path, engine: Path | None) -> Kit:
    """A copy with free ports, whose engine is the environment `engine`, or the stub where that is None."""
    root = copy(tmp_path / "kit")
    place = root / ".berth/engine-cpu"
    if engine:
        place.parent.mkdir()
        place.symlink_to(engine)
    else:
        python = place / "bin/python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!{sys.executable}\n" + Path(__file__).with_name("fake_engine.py").read_text())
        python.chmod(0o755)
    (root / "engine/install/cpu.sh").write_text("#!/usr/bin/env bash\necho installed\n")
    ours = ("LLM_", "VLLM_", "BERTH_", "HF_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return Kit(
        root,
        {
            **kept,
            "PYTHONPATH": f"{root}{os.pathsep}{root / 'microservice'}",
            "FAKE_ENGINE_ROOT": str(ROOT),
            "HF_HOME": str(tmp_path / "huggingface"),
            "LLM_VLLM_PORT": str(free_port()),
            "LLM_USVC_PORT": str(free_port()),
            "DOCKER_HOST": f"unix://{tmp_path}/no-docker.sock",
        },
    )


def end(made: Kit) -> None:
    """Kill what a test left, so that the next one does not suffer."""
    for process in made.running:
        process.kill()
        process.wait()
    for pid in made.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(made.gone, 10, "the end of this test's processes")


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    """A copy whose engine is the stub."""
    made = make(tmp_path, engine=None)
    yield made
    end(made)


def get(url: str) -> tuple[int, Any]:
    """Status and JSON of a GET on this machine; (0, None) where nothing listens."""
    import httpx

    try:
        answer = httpx.get(url, trust_env=False, timeout=10)
    except httpx.TransportError:
        return 0, None
    return answer.status_code, answer.json()
