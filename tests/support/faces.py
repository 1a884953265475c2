"""Every way to run an engine, asked for one thing: the environment in which its launcher is started.

Nothing is started: Compose, kubectl and the job script's own reader render, and the launcher is asked what it would do.
"""

import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth import deployment as deployments
from berth import processplan
from berth.deployment import Deployment
from berth.kserve import aicore, serving
from berth.kubernetes import overlay
from berth.slurm import submit
from engine import host, preflight, serve
from engine.fit import refusal
from tests.support.compose import Project
from tests.support.job_script import bash

ROOT = Path(__file__).resolve().parents[2]

# What a face settles itself: where the engine listens and the service finds it, and where its folders are.
ADDRESS_FLAGS = ("--host", "--port", "--uds")
PLACES = {
    *("HOME", "HF_HOME", "HF_HUB_CACHE", "VLLM_CACHE_ROOT", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
    *("VLLM_HOST_IP", "VLLM_PORT", "LLM_PHASE_FILE"),
}


@dataclass(frozen=True)
class Said:
    """What the launcher makes of an environment: what vLLM is started with, or what it refuses."""

    code: int
    argv: tuple[str, ...]
    environ: Mapping[str, str]


def said(environ: Mapping[str, str], names: set[str], home: Path, capture: pytest.MonkeyPatch) -> Said:
    """The launcher's word on an environment, without the face's own address and places; of variables, only `names`."""
    taken: list[Said] = []

    def become(argv: Sequence[str], final: Mapping[str, str], *_: object) -> int:
        kept = {name: value for name, value in final.items() if name in names and name not in PLACES}
        words = list(argv)
        for flag in ADDRESS_FLAGS:
            while flag in words:
                place = words.index(flag)
                del words[place : place + 2]
        taken.append(Said(0, tuple(words), kept))
        return 0

    capture.setattr(serve, "_become", become)
    # Whether this machine could serve the model is not the question; its free memory changes from moment to moment.
    capture.setattr(preflight, "check", lambda *_: [])
    capture.setattr(refusal, "heeded", lambda *_: [])
    capture.setattr(host, "memory_available", lambda *_: 16 << 30)
    places = {"HOME": str(home), "HF_HOME": str(home / "hf"), "VLLM_CACHE_ROOT": str(home / "compiled")}
    code = serve.launch(["--dry-run"], {**environ, **places, "TMPDIR": str(home)})
    return taken[0] if taken else Said(code, (), {})


def native(files: Sequence[Path], shell: Mapping[str, str]) -> dict[str, str]:
    """Plain processes: what the supervisor gives the engine."""
    resolved = deployment(files, shell)
    own = next(each for each in processplan.plan(resolved)["children"] if each["name"] == "engine")["environ"]
    return {name: value for name, value in {**processplan.environ(resolved), **own}.items() if value is not None}


def compose(files: Sequence[Path], shell: Mapping[str, str]) -> dict[str, str]:
    """Compose by hand: --env-file for each file."""
    engine = Project(files, shell).config()["services"]["engine"]
    return {name: value.replace("$$", "$") for name, value in engine["environment"].items() if value is not None}


_JOB = """
for part in messages envfile settings site models; do source apptainer/lib/$part.sh; done
declare -A site=()
job_dir=apptainer models_dir=/nonexistent deployment=$1
shift
env_files=("$@")
read_settings
setting() { printf '%s=%s\\0' "$1" "$2"; }
engine_settings
"""


def slurm_by_hand(files: Sequence[Path], shell: Mapping[str, str]) -> dict[str, str]:
    """The job script with the files themselves."""
    return _job("", files, shell)


def slurm(files: Sequence[Path], shell: Mapping[str, str]) -> dict[str, str]:
    """The job script with the one file that `berth up` writes."""
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.env"
        job.write_text(submit.job_env(submit.job_settings(deployment(files, shell))), encoding="utf-8")
        return _job(folder, [job], {})


def _job(folder: str, files: Sequence[Path], shell: Mapping[str, str]) -> dict[str, str]:
    done = bash(_JOB, folder, *files, environ=shell, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)


def kubernetes(files: Sequence[Path], shell: Mapping[str, str]) -> dict[str, str]:
    """The manifests of `berth up --runtime kubernetes`."""
    with tempfile.TemporaryDirectory(dir=ROOT / ".berth") as folder:
        wanted = overlay.Wanted(deployment(files, shell))
        return of_pod(kustomized(overlay.write(wanted, Path(folder))), "Deployment", "engine")


def kustomized(folder: Path) -> list[dict[str, Any]]:
    """What kubectl makes of a folder."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def of_pod(documents: Sequence[dict[str, Any]], kind: str, name: str) -> dict[str, str]:
    """The environment of a workload's first container, as the kubelet puts it together."""
    found = next(each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return of_container(documents, found["spec"]["template"]["spec"]["containers"][0])


def of_container(documents: Sequence[dict[str, Any]], container: Mapping[str, Any]) -> dict[str, str]:
    """The ConfigMaps that a container names, later ones winning, then its own variables; $$ there is one $."""
    maps = {each["metadata"]["name"]: each.get("data", {}) for each in documents if each["kind"] == "ConfigMap"}
    environ: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            environ |= maps[source["configMapRef"]["name"]]
    return environ | {each["name"]: each["value"].replace("$$", "$") for each in container.get("env", [])}


def kserve(files: Sequence[Path], shell: Mapping[str, str]) -> dict[str, str]:
    """KServe's model server."""
    documents = serving.documents(deployment(files, shell))
    runtime = next(each for each in documents if each["kind"] == "ServingRuntime")["spec"]
    return of_container(documents, next(each for each in runtime["containers"] if each["name"] == "kserve-container"))


def ai_core(files: Sequence[Path], shell: Mapping[str, str]) -> dict[str, str]:
    """SAP AI Core with the parameters' defaults."""
    return of_container([], predictor(ai_core_template(files, shell))["containers"][0])


def ai_core_template(files: Sequence[Path], shell: Mapping[str, str]) -> dict[str, Any]:
    """The ServingTemplate, with an image of a registry."""
    named = {"BERTH_REGISTRY": "registry.example", "BERTH_VERSION": "v211126-01"}
    return aicore.serving_template(deployment(files, {**shell, **named}))


def predictor(template: Mapping[str, Any], artifact: str = "s3://bucket/model.tar", **given: str) -> dict[str, Any]:
    """What AI Core makes of a serving template: parameters and artifacts put in their places, then read as YAML."""
    inputs, text = template["spec"]["inputs"], template["spec"]["template"]["spec"]
    for parameter in inputs["parameters"]:
        value = given.get(parameter["name"], parameter["default"])
        text = text.replace(f"{{{{inputs.parameters.{parameter['name']}}}}}", value)
    for each in inputs.get("artifacts", []):
        text = text.replace(f"{{{{inputs.artifacts.{each['name']}}}}}", artifact)
    assert "{{" not in text
    made: dict[str, Any] = yaml.safe_load(text)["predictor"]
    return made


def deployment(files: Sequence[Path], shell: Mapping[str, str]) -> Deployment:
    """As the command line reads the files."""
    return deployments.resolve(files, shell=shell, root=ROOT)


Face = Callable[[Sequence[Path], Mapping[str, str]], dict[str, str]]
FACES: dict[str, Face] = {
    "native": native,
    "compose": compose,
    "slurm": slurm,
    "slurm by hand": slurm_by_hand,
    "kubernetes": kubernetes,
    "kserve": kserve,
}
