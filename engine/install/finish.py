"""Completes an engine environment: its own Python runs `python -P engine/install/finish.py DEVICE`.

It makes package `engine` importable, writes the catalog of vLLM's settings (which imports vLLM, so a broken environment
fails here), imports the service on :9000 for the same reason, and lists the licence of every installed package.
"""

import os
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution, distributions
from pathlib import Path

KIT = Path(__file__).resolve().parents[2]
SERVICE = "import llm_service.__main__, httptools, uvloop"


def licence(package: Distribution) -> str:
    """What the package's own metadata says: an SPDX expression, else the short field, else its classifiers."""
    meta = package.metadata
    fields = (*(meta.get_all("License-Expression") or []), *(meta.get_all("License") or []))
    stated: str = fields[0] if fields else ""
    if not stated.strip() or "\n" in stated:
        stated = ", ".join(c.split(" :: ")[-1] for c in meta.get_all("Classifier", []) if c.startswith("License"))
    return stated or "see the package's own files"


def main() -> int:
    """Exit code 0, or that of the program that failed."""
    device = sys.argv[1]
    share = Path(sys.prefix, "share", "berth")
    share.mkdir(parents=True, exist_ok=True)
    Path(sysconfig.get_path("purelib"), "berth-engine.pth").write_text(f"{KIT}\n")
    packages = {f"{p.metadata['Name']} {p.version}": licence(p) for p in distributions()}
    lines = (f"{name}: {stated}\n" for name, stated in sorted(packages.items(), key=lambda item: item[0].lower()))
    Path(share, "licences.txt").write_text("".join(lines))
    python = [sys.executable, "-P"]
    environ = {**os.environ, "PYTHONPATH": str(KIT / "microservice")}  # in an image it lies beside `engine`
    if code := subprocess.run([*python, "-c", SERVICE], env=environ).returncode:
        return code
    return subprocess.run([*python, "-m", "engine.write_catalog", "--device", device]).returncode


if __name__ == "__main__":
    sys.exit(main())
