"""Prints the path of uv: the one on PATH, the private one, or one that it installs now. Standard library only.

Usage: python3 get_uv.py DIRECTORY
Ways, first that works: `python -m venv` and its pip, a pip that is already there, uv's own installer.
Exit code 3 when none does.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

OLDEST = (0, 7)  # the first line with --torch-backend, which engine/install needs
INSTALLER = "https://astral.sh/uv/install.sh"


def works(uv: str | Path) -> bool:
    """Whether `uv` runs and is new enough; a version manager's shim may be there and yet not run."""
    try:
        words = subprocess.run([uv, "--version"], capture_output=True, text=True, timeout=30).stdout.split()
        return tuple(int(part) for part in words[1].split(".")[:2]) >= OLDEST
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return False


def run(*command: str | Path, **extra: str) -> None:
    """Run quietly. Raises RuntimeError with the last line of what the command said."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **extra})
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(said[-1] if said else f"exit code {done.returncode}")


def by_venv(directory: Path) -> None:
    """A virtual environment's own pip."""
    run(sys.executable, "-m", "venv", "--clear", directory)
    run(directory / "bin" / "python", "-m", "pip", "install", "--quiet", "uv")


def by_pip(directory: Path) -> None:
    """A pip that is already there; --target leaves the system's packages alone, so Debian allows it."""
    run(sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", directory, "uv")


def by_installer(directory: Path) -> None:
    """uv's own installer, told to put one file into the private folder and to change nothing else."""
    with urllib.request.urlopen(INSTALLER, timeout=30) as answer, tempfile.NamedTemporaryFile() as script:
        script.write(answer.read())
        script.flush()
        run("sh", script.name, UV_UNMANAGED_INSTALL=str(directory / "bin"))


def main() -> int:
    """Print the path of a uv that works, or say in one sentence what to install."""
    directory = Path(sys.argv[1])
    private = directory / "bin" / "uv"
    for known in (shutil.which("uv"), private):
        if known and works(known):
            print(known)
            return 0
    print(f"berth: installing uv into {directory}", file=sys.stderr)
    failures = []
    ways: list[Callable[[Path], None]] = [by_venv, by_pip, by_installer]
    for way in ways:
        shutil.rmtree(directory, ignore_errors=True)
        try:
            way(directory)
        except (OSError, RuntimeError) as error:
            failures.append(f"{way.__name__.removeprefix('by_')}: {error}")
            continue
        if works(private):
            print(private)
            return 0
        failures.append(f"{way.__name__.removeprefix('by_')}: installed a uv that does not run")
    shutil.rmtree(directory, ignore_errors=True)
    print(f"berth: error: no way to install uv worked ({'; '.join(failures)})", file=sys.stderr)
    print("berth: hint: install the package python3-venv (as root: apt-get install python3-venv)", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
