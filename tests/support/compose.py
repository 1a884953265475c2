"""Real Compose for tests: projects of their own, with stand-in images, from this repository's root."""

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engine import devices
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = {"BERTH_REGISTRY": "berth-stand-in", "BERTH_VERSION": "test"}

_KEPT = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR")
_BASES = ("berth-lab/base:bookworm", "python:3.11-slim-bookworm")
_numbers = itertools.count()


def device_files() -> list[str]:
    """Every device's env file, as a path from the root."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "env").glob("*.env") if path.stem in devices.names())


def model_files() -> list[str]:
    """Every model's env file, as a path from the root."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "env" / "models").glob("*.env"))


def environment(shell: Mapping[str, str]) -> dict[str, str]:
    """This process's environment cut down to what reaches Docker, and `shell` on top."""
    return {**{name: os.environ[name] for name in _KEPT if name in os.environ}, **shell}


def docker(*args: str, check: bool = True, stdin: str | None = None) -> str:
    """Run docker and return what it printed; raises AssertionError with its messages when it fails."""
    done = subprocess.run(["docker", *args], input=stdin, capture_output=True, text=True, env=environment({}))
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(args[:3])} failed: {done.stderr}")
    return done.stdout


def needs_compose() -> None:
    """Skip the test where there is no Compose; no engine is needed to render files."""
    if not shutil.which("docker") or not docker("compose", "version", check=False):
        pytest.skip("no Docker Compose here (scripts/test --all fetches it on Debian)")


def needs_engine() -> None:
    """Skip the test where no Docker Engine answers."""
    needs_compose()
    if not docker("version", "--format", "{{.Server.Version}}", check=False).strip():
        pytest.skip("no Docker Engine answers here (scripts/test --all starts one on Debian)")


@cache
def stand_in_images() -> None:
    """Build the stand-ins for every image once, under the registry and version of STAND_IN."""
    needs_engine()
    folder = ROOT / "tests" / "support" / "stand_in"
    for target in ("engine", "llm"):
        images = ["llm"] if target == "llm" else [f"vllm-{Path(file).stem}" for file in device_files()]
        tags = [f"--tag={STAND_IN['BERTH_REGISTRY']}/{image}:{STAND_IN['BERTH_VERSION']}" for image in images]
        base = f"--build-arg=BASE_IMAGE={_base()}"
        docker("build", "--quiet", f"--file={folder / 'Dockerfile'}", f"--target={target}", base, *tags, str(ROOT))


def _base() -> str:
    for image in _BASES:
        if docker("image", "inspect", image, check=False).strip() not in ("", "[]"):
            return image
    if (
        subprocess.run(["docker", "pull", "--quiet", _BASES[1]], capture_output=True, env=environment({})).returncode
        == 0
    ):
        return _BASES[1]
    made = subprocess.run([ROOT / "tests" / "lab" / "base-images"], capture_output=True, text=True, env=environment({}))
    if made.returncode != 0:
        pytest.skip(f"no image with Python can be had: {made.stderr.strip()}")
    return _BASES[0]


class Project:
    """One Compose project with a name of its own, taken down with everything it made when the block ends."""

    def __init__(self, files: Sequence[str | Path], shell: Mapping[str, str] | None = None) -> None:
        self.name = f"berth-test-{os.getpid()}-{next(_numbers)}"
        self.files = [str(file) for file in files]
        self.shell = dict(shell or {})

    def __enter__(self) -> "Project":
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(
            ["docker", "compose", "-p", self.name, "down", "--volumes", "--timeout", "1", "--remove-orphans"],
            capture_output=True,
            env=environment({}),
        )

    def run(
        self, *args: str, check: bool = True, shell: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one Compose command; raises AssertionError with its messages when it fails and `check` is set."""
        files = [word for file in self.files for word in ("--env-file", file)]
        done = subprocess.run(
            ["docker", "compose", "-p", self.name, *files, *args],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment({**self.shell, **(shell or {})}),
        )
        if check and done.returncode != 0:
            raise AssertionError(f"docker compose {args[0]} failed: {done.stderr}\n{self.logs()}")
        return done

    def config(self) -> dict[str, Any]:
        """The rendered configuration."""
        rendered: dict[str, Any] = json.loads(self.run("config", "--format", "json").stdout)
        return rendered

    def logs(self, service: str | None = None) -> str:
        """What the containers printed so far, without prefixes."""
        words = ["docker", "compose", "-p", self.name, "logs", "--no-log-prefix", *([service] if service else [])]
        done = subprocess.run(words, capture_output=True, text=True, env=environment({}))
        return done.stdout + done.stderr

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine says of a service's container."""
        found: list[dict[str, Any]] = json.loads(docker("inspect", f"{self.name}-{service}-1"))
        return found[0]

    def started_with(self) -> dict[str, Any]:
        """What the stand-in vLLM was started with: {"argv": [...], "environ": {...}}."""

        def reports() -> list[str]:
            return [line for line in self.logs("engine").splitlines() if line.startswith('{"argv"')]

        started: dict[str, Any] = json.loads(wait_until(reports, 60, "the stand-in's report")[-1])
        return started
