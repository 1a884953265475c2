"""What this machine or container allows, as the kernel says it: CPUs, memory, shared memory, disk."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 1 << 62  # cgroup v1 writes a number near 2**63 for "no limit"
ROOT = Path("/")


@dataclass(frozen=True)
class Cpu:
    """One logical CPU, the physical core it belongs to (named by its lowest sibling), and its NUMA node."""

    id: int
    core: int
    node: int


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """This process's control group and those above it, as far as visible: a limit may stand in any."""
    unified, separate = root / "sys/fs/cgroup", root / "sys/fs/cgroup" / controller
    base = separate if separate.is_dir() else unified
    place = ""
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        if controller in controllers.split(",") or (controllers == "" and base is unified):
            place = path.strip("/")
    parts = [part for part in place.split("/") if part and part != ".."]
    for depth in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:depth])


def cpu_quota(root: Path = ROOT) -> float | None:
    """CPUs' worth of time that the CFS quota allows (`docker run --cpus`, Kubernetes `limits.cpu`), or None."""
    quotas = []
    for group in _groups("cpu", root):
        limit, _, period = (_text(group / "cpu.max") or "").partition(" ")
        quota, every = _number(limit), _number(period)
        if quota is None:
            quota, every = _number(_text(group / "cpu.cfs_quota_us")), _number(_text(group / "cpu.cfs_period_us"))
        if quota is not None and every and quota > 0:
            quotas.append(quota / every)
    return min(quotas, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that the control group allows; None without a limit below what the machine has."""
    limits = []
    for group in _groups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(_text(group / name))
            if limit is not None and limit < _UNLIMITED:
                limits.append(limit)
    total = _meminfo("MemTotal", root)
    return min((limit for limit in limits if total is None or limit < total), default=None)


def memory_available(root: Path = ROOT) -> int | None:
    """Bytes that this process may still take: under the limit of its control group, and on the machine."""
    found = [_meminfo("MemAvailable", root)]
    if (limit := memory_limit(root)) is not None:
        used = max(0, _memory_used(root))
        found.append(max(0, limit - used))
    return min((value for value in found if value is not None), default=None)


def _memory_used(root: Path) -> int:
    """What the control group holds, without file pages that the kernel gives up on demand."""
    for group in _groups("memory", root):
        for usage, inactive in (("memory.current", "inactive_file"), ("memory.usage_in_bytes", "total_inactive_file")):
            used = _number(_text(group / usage))
            if used is not None:
                match = re.search(rf"^{inactive} (\d+)$", _text(group / "memory.stat") or "", re.MULTILINE)
                return used - (int(match[1]) if match else 0)
    return 0


def _meminfo(key: str, root: Path) -> int | None:
    match = re.search(rf"^{key}:\s+(\d+) kB", _text(root / "proc/meminfo") or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def cpus(mask: Iterable[int], root: Path = ROOT) -> list[Cpu]:
    """The logical CPUs in `mask` with their topology; each is a core of its own where the kernel tells none."""
    found = []
    for cpu in sorted(mask):
        folder = root / f"sys/devices/system/cpu/cpu{cpu}"
        siblings = re.match(r"\d+", _text(folder / "topology/thread_siblings_list") or "")
        nodes = [int(path.name[4:]) for path in folder.glob("node[0-9]*") if path.name[4:].isdigit()]
        found.append(Cpu(cpu, int(siblings[0]) if siblings else cpu, min(nodes, default=0)))
    return found


def has_avx512(root: Path = ROOT) -> bool:
    """Whether an x86-64 processor has AVX-512, in the form that vLLM and PyTorch ask for."""
    flags = re.search(r"^flags\s*:(.*)$", _text(root / "proc/cpuinfo") or "", re.MULTILINE)
    return bool(flags) and {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= set(flags[1].split())  # type: ignore[index]


def affinity() -> set[int]:
    """The logical CPUs that this process may run on (cpuset, taskset)."""
    return os.sched_getaffinity(0)


def shared_memory_free() -> int | None:
    """Bytes free in /dev/shm; None where that cannot be told."""
    return disk_free(Path("/dev/shm"))  # noqa: S108 (only asked for its size)


def disk_free(path: Path) -> int | None:
    """Bytes that an ordinary user may still write at `path` or the nearest folder above it; None if unknown."""
    for place in (path, *path.parents):
        try:
            status = os.statvfs(place)
        except OSError:
            continue
        return status.f_bavail * status.f_frsize
    return None
