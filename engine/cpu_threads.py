"""Which CPUs each worker's OpenMP threads are bound to, where vLLM's own choice would ignore a quota."""

import math
import platform
from collections.abc import Sequence

from engine.host import Cpu


def bind(cpus: Sequence[Cpu], quota: float | None, ranks: int, reserved: int | None = None) -> list[list[int]] | None:
    """Return the logical CPUs for each of `ranks` workers; None where vLLM's automatic binding does as well.

    vLLM binds by the affinity mask alone. Under a CFS quota that is too many threads, which the kernel then throttles
    all at once; and with fewer NUMA nodes than workers vLLM gives up. As vLLM does, one CPU of each physical core is
    taken, and `reserved` cores, by default one for each worker, are left to the front end where there are enough.
    """
    limited = quota is not None and quota < len(cpus)
    if not limited and ranks <= len({cpu.node for cpu in cpus}):
        return None
    cores = physical_cores(cpus)
    if limited and quota is not None:
        cores = cores[: max(1, math.floor(quota))]
    kept = ranks if reserved is None else reserved
    each = max(1, (len(cores) - kept if len(cores) > kept else len(cores)) // ranks)
    return [[cores[(rank * each + index) % len(cores)] for index in range(each)] for rank in range(ranks)]


def physical_cores(cpus: Sequence[Cpu]) -> list[int]:
    """One logical CPU of each physical core, NUMA node by NUMA node: the last sibling, as vLLM takes it on x86."""
    if platform.machine() == "aarch64":
        return [cpu.id for cpu in sorted(cpus, key=lambda cpu: (cpu.node, cpu.id))]
    last = {(cpu.node, cpu.core): cpu.id for cpu in sorted(cpus, key=lambda cpu: cpu.id)}
    return [last[key] for key in sorted(last)]


def as_setting(lists: Sequence[Sequence[int]]) -> str:
    """The form of VLLM_CPU_OMP_THREADS_BIND: `0,1|2,3`."""
    return "|".join(",".join(map(str, cores)) for cores in lists)
