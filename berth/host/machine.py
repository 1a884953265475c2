"""Facts about this machine: memory, disk, shared memory, programs, instruction sets."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

GIB = 1024**3


def memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that programs can still get, in bytes (MemAvailable), or None where the kernel does not say."""
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def free_bytes(path: Path) -> int | None:
    """Free disk space where `path` is, or would be."""
    for place in (path, *path.parents):
        if place.exists():
            try:
                return shutil.disk_usage(place).free
            except OSError:
                return None
    return None


def writable(path: Path) -> bool:
    """Whether this user can write into a directory, or make it."""
    for place in (path, *path.parents):
        if place.exists():
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def output(command: Sequence[str], timeout: float = 15.0) -> str | None:
    """What a program prints, or None when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The instruction sets that the first processor names."""
    try:
        match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        return set()
    return set(match[1].split()) if match else set()
