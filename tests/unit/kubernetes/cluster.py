"""A cluster that only a fake kubectl knows, and what is said to stand in it."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from berth import deployment as deployments
from berth.deployment import Deployment
from berth.kubernetes import overlay

ROOT = Path(__file__).resolve().parents[3]
FAKE = ROOT / "tests" / "support" / "fake_kubectl.py"


class Cluster:
    """What the fake one says, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, *objects: dict[str, Any]) -> None:
        (self.folder / "objects.json").write_text(json.dumps(objects))

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]


def demo(device: str = "cpu", **shell: str) -> Deployment:
    return deployments.resolve([ROOT / "env/models/demo.env"], device, shell)


def pod(part: str, *, ready: bool = False, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "kind": "Pod",
        "metadata": {"name": f"{part}-1", "labels": {"app.kubernetes.io/name": part}},
        "status": {"phase": "Running", "conditions": conditions, **status},
    }


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "message": message, "reason": reason}}
    return {"containerStatuses": [{"name": "engine", "restartCount": 1, "state": state}]}


def waiting_for(reason: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": "the registry says no"}}
    return {"containerStatuses": [{"name": "engine", "image": "berth/vllm-cpu:0.1.0", "state": state}]}


def service(model: str = "demo") -> dict[str, Any]:
    return {
        "kind": "Service",
        "metadata": {"name": "llm", "annotations": {"berth/device": "cpu", "berth/model": model}},
    }


def without_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """An empty one, in place of the real kubectl."""
    real = shutil.which("kubectl")
    assert real
    folder = tmp_path / "cluster"
    folder.mkdir()
    script = folder / "kubectl"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("FAKE_KUBECTL", str(folder))
    monkeypatch.setenv("REAL_KUBECTL", real)
    monkeypatch.setattr(overlay, "FOLDER", tmp_path / "kustomization")
    made = Cluster(folder)
    made.has()
    return made
