"""A device is a set of new files: an invented one, made by copying the CPU's, works everywhere without an edit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = "abacus"
FILES = (
    "Dockerfile.cpu",
    "engine/install/cpu.sh",
    "engine/devices/cpu.py",
    "engine/catalogs/cpu.json",
    "compose/cpu.yaml",
    "apptainer/devices/cpu.sh",
    "env/cpu.env",
)
SETTINGS = {
    "BERTH_DEVICE_ENV=env/cpu.env": f"BERTH_DEVICE_ENV=env/{NAME}.env",
    "LLM_DEVICE=cpu": f"LLM_DEVICE={NAME}",
    "compose/cpu.yaml": f"compose/{NAME}.yaml",
    "vllm-cpu:": f"vllm-{NAME}:",
    "Dockerfile.cpu": f"Dockerfile.{NAME}",
    '"device": "cpu"': f'"device": "{NAME}"',
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout with the new device's files, and nothing else changed."""
    copy = tmp_path_factory.mktemp("checkout")
    for part in ("apptainer", "engine", "berth", "compose", "env", "models", "microservice"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "local.env"))
    for dockerfile in ROOT.glob("Dockerfile.*"):
        shutil.copy(dockerfile, copy)
    for file in FILES:
        text = (ROOT / file).read_text(encoding="utf-8")
        for old, new in SETTINGS.items():
            text = text.replace(old, new)
        target = copy / file.replace("cpu", NAME)
        target.write_text(text, encoding="utf-8")
    return copy


def run(checkout: Path, *args: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(checkout),
        "PYTHONPATH": f"{checkout}:{checkout / 'microservice'}",
    }
    return subprocess.run(
        [sys.executable, "-P", "-m", *args], cwd=checkout, env={**environ, **settings}, capture_output=True, text=True
    )


def test_the_launcher_serves_it(checkout: Path) -> None:
    done = run(checkout, "engine.serve", "--dry-run", LLM_DEVICE=NAME, LLM_VLLM_MODEL_NAME="demo")
    assert done.returncode == 0, done.stderr
    assert "--served-model-name demo" in done.stdout


def test_the_launcher_names_it_among_the_devices_it_knows(checkout: Path) -> None:
    done = run(checkout, "engine.serve", "--check", LLM_DEVICE="sundial", LLM_VLLM_MODEL_NAME="demo")
    assert done.returncode == 2
    assert NAME in done.stderr


def test_the_command_line_starts_it(checkout: Path) -> None:
    done = run(checkout, "berth", "up", "--env", f"env/{NAME}.env", "--runtime", "native", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert f"engine-{NAME}" in json.dumps(json.loads(done.stdout))


def test_a_slurm_job_finds_what_is_particular_about_it(checkout: Path) -> None:
    job = f"""
    set -euo pipefail
    for part in messages envfile settings; do source apptainer/lib/$part.sh; done
    job_dir=apptainer deployment='' env_files=(env/{NAME}.env env/models/demo.env)
    read_settings
    source "$job_dir/devices/$device.sh"
    device_prepare 1
    echo "$device"
    """
    done = subprocess.run(["bash", "-c", job], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == NAME


def test_the_list_of_names_for_compose_needs_no_edit(checkout: Path) -> None:
    before = (checkout / "compose" / "settings.yaml").read_text(encoding="utf-8")
    done = run(checkout, "compose.write_settings")
    assert done.returncode == 0, done.stderr
    assert (checkout / "compose" / "settings.yaml").read_text(encoding="utf-8") == before
