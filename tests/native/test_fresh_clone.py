"""The README's first command on a fresh clone: set-up, installation, start, answer, stop."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native.conftest import ROOT
from tests.support.engine_python import engine_python
from tests.support.waiting import free_port

pytestmark = [pytest.mark.native, pytest.mark.vllm]

INSTALLED_S = 1500.0  # a bound for hangs: vLLM is downloaded where no cache has it


def clone(target: Path) -> Path:
    """The files that git would hand out, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())
            (target / name).chmod((ROOT / name).stat().st_mode & 0o777)
    return target


def fresh_path() -> str:
    """PATH as a fresh machine has it, so that the system's own Python is used; this one's where that is too old."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    python = shutil.which("python3", path=path)
    new_enough = "import sys; sys.exit(sys.version_info < (3, 11))"
    fits = python is not None and subprocess.run([python, "-c", new_enough]).returncode == 0
    return path if fits else os.environ["PATH"]


def test_scripts_up_on_a_fresh_clone_answers_and_down_stops_it(tmp_path: Path) -> None:
    engine_python()  # where vLLM cannot be installed, this test cannot run either
    kit = clone(tmp_path / "kit")
    ours = ("LLM_", "VLLM_", "BERTH_", "HF_", "UV_", "PYTHONPATH", "VIRTUAL_ENV")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {
        "PATH": fresh_path(),
        "HF_ENDPOINT": f"http://127.0.0.1:{free_port()}",  # no hub, so that the demo model is served anywhere
        "HF_HOME": str(tmp_path / "huggingface"),
        "DOCKER_HOST": f"unix://{tmp_path}/no-docker.sock",
        "LLM_VLLM_PORT": str(free_port()),
        "LLM_USVC_PORT": str(free_port()),
    }

    def run(*words: str, timeout: float = INSTALLED_S) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=timeout)

    try:
        up = run(str(kit / "scripts/up"), "-d", "--json")
        assert up.returncode == 0, up.stderr
        assert "serving the built-in demo model instead" in up.stderr
        answer = run("bash", "-c", json.loads(up.stdout)["curl"] + " -s")
        assert "neural networks" in json.loads(answer.stdout)["choices"][0]["message"]["content"]
        again = run(str(kit / "scripts/up"), "-d", timeout=60)
        assert (again.returncode, "already running" in again.stderr) == (0, True)
    finally:
        down = run(str(kit / "scripts/berth"), "down")
    assert down.stdout == "stopped\n"
