"""Packed models, unpacked by the system's own program."""

import subprocess
from pathlib import Path


def untar(pack: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-xf", pack, "-C", folder], check=True)
