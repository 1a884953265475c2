"""Writes env/kustomization.yaml: a ConfigMap of each env/DEVICE.env. Run: python -m berth.kubernetes.write_env

Kustomize reads no file outside the folder of its kustomization and knows no wildcards, so the list stands beside the
files themselves, and `kubectl apply -k` takes them as they are.
"""

import sys
from pathlib import Path

from berth.paths import ROOT
from engine import devices

TARGET = ROOT / "env" / "kustomization.yaml"

_HEADER = """\
# Written by `python -m berth.kubernetes.write_env` from the files here, for kubectl apply -k: kustomize reads no file
# outside the folder of its kustomization. Each overlay keeps the ConfigMap of its device.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization

configMapGenerator:
"""
_ENTRY = """\
  - name: {device}
    envs: [{device}.env]
    options: {{labels: {{berth/device: {device}}}}}
"""


def text(folder: Path = TARGET.parent) -> str:
    """The whole file, for the devices that have an env file."""
    found = sorted(name for name in devices.names() if (folder / f"{name}.env").is_file())
    return _HEADER + "".join(_ENTRY.format(device=name) for name in found)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    sys.stderr.write(f"{TARGET.relative_to(ROOT)} is written\n")
