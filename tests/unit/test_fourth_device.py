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
    "kubernetes/overlays/cpu/kustomization.yaml",
)
# What the tests of a checkout read beside its folders.
CONFIGURATION = ("pyproject.toml", "docker-bake.hcl", ".hadolint.yaml")
# Lists that commands write, since neither Compose nor kustomize knows wildcards.
WRITTEN_BY = ("compose.write_settings", "berth.kubernetes.write_env")
# Tests that walk the devices, without containers and without vLLM.
WALKS = (
    "tests/compose/test_env_files.py",
    "tests/image/test_dockerfiles.py",
    "tests/unit/kserve/test_serving.py",
    "tests/unit/kubernetes/test_manifests.py",
    "tests/unit/kubernetes/test_policy.py",
)
SETTINGS = {
    "BERTH_DEVICE_ENV=env/cpu.env": f"BERTH_DEVICE_ENV=env/{NAME}.env",
    "LLM_DEVICE=cpu": f"LLM_DEVICE={NAME}",
    "compose/cpu.yaml": f"compose/{NAME}.yaml",
    "vllm-cpu:": f"vllm-{NAME}:",
    "Dockerfile.cpu": f"Dockerfile.{NAME}",
    "ARG DEVICE=cpu": f"ARG DEVICE={NAME}",
    '"device": "cpu"': f'"device": "{NAME}"',
    "vllm-cpu,": f"vllm-{NAME},",
    "device!=cpu": f"device!={NAME}",
    "value: cpu}": f"value: {NAME}}}",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout with the new device's files, and nothing else changed."""
    copy = tmp_path_factory.mktemp("checkout")
    for part in ("apptainer", "engine", "berth", "compose", "env", "kubernetes", "models", "microservice", "tests"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "local.env"))
    for file in (*ROOT.glob("Dockerfile.*"), *(ROOT / name for name in CONFIGURATION)):
        shutil.copy(file, copy)
    for name in FILES:
        text = (ROOT / name).read_text(encoding="utf-8")
        for old, new in SETTINGS.items():
            text = text.replace(old, new)
        target = copy / name.replace("cpu", NAME)
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")
    for module in WRITTEN_BY:
        done = run(copy, module)
        assert done.returncode == 0, done.stderr
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
    before = (ROOT / "compose" / "settings.yaml").read_text(encoding="utf-8")
    assert (checkout / "compose" / "settings.yaml").read_text(encoding="utf-8") == before


def needs_kubectl() -> None:
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl on PATH, which builds kustomizations")


@pytest.mark.parametrize("runtime", ["kubernetes", "kserve"])
def test_kubernetes_and_kserve_serve_it(checkout: Path, runtime: str) -> None:
    needs_kubectl()
    done = run(checkout, "berth", "render", "--env", f"env/{NAME}.env", "--runtime", runtime)
    assert done.returncode == 0, done.stderr
    assert f"berth/vllm-{NAME}:" in done.stdout
    assert f"LLM_DEVICE: {NAME}" in done.stdout
    assert "LLM_DEVICE: cuda" not in done.stdout


def test_tests_that_walk_the_devices_hold_it_to_the_rules_of_the_others(checkout: Path) -> None:
    needs_kubectl()
    done = run(checkout, "pytest", "-v", "-p", "no:cacheprovider", "-k", NAME, *WALKS)
    assert done.returncode == 0, done.stdout + done.stderr
    for walk in WALKS:
        assert run_of(walk, done.stdout), f"{walk} does not know {NAME}: {done.stdout}"


def run_of(walk: str, said: str) -> bool:
    """Whether some test of a file ran."""
    return f"{walk} " in said or f"{walk}::" in said
