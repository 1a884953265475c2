"""What a kustomization comes to: built by kubectl, without a cluster."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from berth.errors import Exit, failed
from berth.paths import ROOT, shown


def documents(device: str) -> list[dict[str, Any]]:
    """The manifests of a device's overlay. Raises BerthError: exit code 2 where it has none, 3 without kubectl."""
    folder = ROOT / "kubernetes" / "overlays" / device
    if not folder.is_dir():
        raise failed(
            f"{shown(folder)} is not there", f"{device} needs an overlay: docs/add-a-device.md", Exit.BAD_SETTING
        )
    return built(folder)


def built(folder: Path) -> list[dict[str, Any]]:
    """The manifests of a kustomization. Raises BerthError, with exit code 3 without kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        hint = "install kubectl 1.27 or newer: https://kubernetes.io/docs/tasks/tools"
        raise failed("no kubectl on PATH, which builds the manifests", hint, Exit.MISSING_PREREQUISITE)
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise failed(f"{shown(folder)} cannot be built: {done.stderr.strip()}", "try: kubectl kustomize")
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def named(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """One of the manifests. Raises KeyError where it is not there."""
    for each in found:
        if each["kind"] == kind and each["metadata"]["name"] == name:
            return each
    raise KeyError(f"{kind} {name}")
