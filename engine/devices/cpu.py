"""CPU: any x86-64 or ARM machine."""

import platform
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from engine import cpu_memory, cpu_threads, host, model, ranks
from engine.decisions import Decision, Situation
from engine.devices import Detection
from engine.messages import Exit, Problem
from engine.quantize.schemes import FOR_GAUDI, GAUDI

VARIABLES: Mapping[str, str] = {}
STALE: Mapping[str, str] = {
    "PT_HPU_LAZY_ACC_PAR_MODE": "it was read by Gaudi's software of 2024; nothing reads it now",
}
ELSEWHERE: Mapping[str, str] = {}
ONLY_VALUES: Mapping[tuple[str, str], str] = {}

# Constants: some enter vLLM's compile-cache key, so images and native installations must agree on them.
_CONSTANTS = {
    "VLLM_USE_AOT_COMPILE": ("0", "vLLM 0.32 cannot load such code again on CPU; Inductor's cache it can"),
    # These three are what vLLM sets itself, too late for a process that was forked with PyTorch already imported.
    "TORCHINDUCTOR_COMPILE_THREADS": ("1", "vLLM's workers may have no children"),
    "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": ("1", "compiled code must not fix a number of threads"),
    "OPENBLAS_NUM_THREADS": ("1", "NumPy's idle threads would forbid sharing one import by fork"),
}
_QUEUES = 400 << 20
_LIBRARIES = (Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib"))


def detect() -> Detection | None:
    """Every machine has a CPU."""
    return Detection(1, "every machine has one", accelerator=False)


def visible_devices(environ: Mapping[str, str]) -> int | None:
    """Tensor parallel ranks on CPU are processes; how many a machine carries is no count of devices."""
    return None


def room(situation: Situation) -> int | None:
    """What is free, less what interpreters and activations take, shared by the workers."""
    available = host.memory_available()
    return None if available is None else max(1, available - cpu_memory.HEADROOM) // ranks.here(situation)


def cannot_serve(scheme: str) -> tuple[str, str] | None:
    """For 4-bit weights vLLM has a kernel for AVX-512 and for ARM (vLLM 0.32: _C_AVX2 lacks cpu_gemm_wna16)."""
    if scheme == GAUDI:
        return FOR_GAUDI
    if scheme != "w4a16" or platform.machine() not in ("x86_64", "AMD64") or host.has_avx512():
        return None
    return "vLLM's kernel for 4-bit weights needs AVX-512, which this processor lacks", "use w8a8 or fp8-dynamic"


def problems(situation: Situation) -> list[Problem]:
    """Nothing is refused for the CPU's sake by name or value."""
    return []


def preflight(situation: Situation) -> list[Problem]:
    """A worker's queues must fit into the shared memory, and the processor must have the kernel for the weights."""
    return [*_queues(situation), *_four_bits(situation)]


def _four_bits(situation: Situation) -> list[Problem]:
    """Without this vLLM ends with its first request, after it has loaded everything."""
    files = _files(situation)
    if files is None or files.weight_bits() != 4 or (why := cannot_serve("w4a16")) is None:
        return []
    return [
        Problem(
            f"{situation.model} is quantized to 4 bits, and {why[0]}", "serve one quantized to 8 bits, or the original"
        )
    ]


def _queues(situation: Situation) -> list[Problem]:
    """On CPU even a single worker is a process of its own, spoken to through two queues in /dev/shm (vLLM 0.32: 160 and
    240 MiB). Docker and Kubernetes give a container 64 MiB. More workers need more, which engine.preflight asks for.
    """
    free = host.shared_memory_free()
    if free is None or free >= _QUEUES or ranks.here(situation) > 1:
        return []
    return [
        Problem(
            f"/dev/shm has {free >> 20} MiB free; vLLM needs {_QUEUES >> 20} to speak to its worker",  # noqa: S108 (named)
            "give the container `--shm-size 1g`, or on Kubernetes an emptyDir with medium Memory there",
            Exit.MISSING_PREREQUISITE,
        )
    ]


def _files(situation: Situation) -> model.ModelFiles | None:
    if situation.model is None:
        return None
    return model.find(situation.model, situation.environ, situation.values)


def tune(situation: Situation) -> list[Decision]:
    """Threads, memory, libraries and compiled code as suits a CPU."""
    constants = [
        Decision(f"{name}={value}", why, {name: value})
        for name, (value, why) in _CONSTANTS.items()
        if name not in situation.environ
    ]
    return [*constants, *_threads(situation), *_kv_cache(situation), *_preload(situation), *_compiler(situation)]


def _compiler(situation: Situation) -> list[Decision]:
    """Without a C++ compiler or Python's headers vLLM dies when it compiles a model; uncompiled it serves, slower."""
    said = {"enforce-eager", "optimization-level", "compilation-config"} & situation.values.keys()
    missing = [
        name
        for name, found in (
            ("a C++ compiler", shutil.which(situation.environ.get("CXX") or "g++")),
            ("Python's headers", Path(sysconfig.get_path("include"), "Python.h").is_file()),
        )
        if not found
    ]
    if said or not missing:
        return []
    why = (
        f"{' and '.join(missing)} not found, so the model cannot be compiled; faster with g++ and python3-dev installed"
    )
    return [Decision("--enforce-eager", why, args=("--enforce-eager",))]


def _threads(situation: Situation) -> list[Decision]:
    if {"VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS"} & situation.environ.keys():
        return []
    quota, mask = host.cpu_quota(), host.affinity()
    reserved = situation.environ.get("VLLM_CPU_NUM_OF_RESERVED_CPU")
    lists = cpu_threads.bind(host.cpus(mask), quota, ranks.here(situation), int(reserved) if reserved else None)
    if lists is None:
        return []
    value = cpu_threads.as_setting(lists)
    why = (
        f"a quota of {quota:.4g} CPUs on {len(mask)}: more threads would be throttled"
        if quota is not None and quota < len(mask)
        else f"{len(lists)} workers share the NUMA nodes, which vLLM alone refuses"
    )
    return [Decision(f"VLLM_CPU_OMP_THREADS_BIND={value}", why, {"VLLM_CPU_OMP_THREADS_BIND": value})]


def _kv_cache(situation: Situation) -> list[Decision]:
    said = {"kv-cache-memory-bytes", "gpu-memory-utilization", "num-gpu-blocks-override"} & situation.values.keys()
    available = host.memory_available()
    if said or "VLLM_CPU_KVCACHE_SPACE" in situation.environ or available is None:
        return []
    workers = ranks.here(situation)
    sequences = situation.number("max-num-seqs", cpu_memory.DEFAULT_SEQUENCES * workers)
    tokens = situation.number("max-model-len", 0) or None
    memory = cpu_memory.Memory(available, host.memory_limit() is not None)
    size, why = cpu_memory.kv_cache(memory, _files(situation), tokens, sequences, situation.values.get("dtype", "auto"))
    each = str(size // workers)
    return [Decision(f"--kv-cache-memory-bytes {each}", why, args=("--kv-cache-memory-bytes", each))]


def _preload(situation: Situation) -> list[Decision]:
    """tcmalloc and Intel's OpenMP, as vLLM advises; with the latter, one import for all of vLLM's processes."""
    before = [name for name in situation.environ.get("LD_PRELOAD", "").replace(":", " ").split() if name]
    added = []
    if not any("tcmalloc" in name for name in before):
        added += [str(found) for found in _tcmalloc()[:1]]
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    if not any("omp" in Path(name).name for name in before) and _is_x86() and openmp.is_file():
        added.append(str(openmp))
    libraries = [*added, *before]
    decisions = []
    if added:
        names = " and ".join(Path(name).name for name in added)
        value = ":".join(libraries)
        decisions.append(Decision(f"{names} preloaded", "faster memory and threads", {"LD_PRELOAD": value}))
    spawning = "VLLM_WORKER_MULTIPROC_METHOD" in situation.environ or "numa-bind" in situation.values
    if any("libiomp" in name for name in libraries) and not spawning:
        why = "a third of the start-up time; VLLM_WORKER_MULTIPROC_METHOD=spawn has vLLM start them anew"
        decisions.append(Decision("vLLM's processes forked after one import", why, module="engine.prefork"))
    return decisions


def _is_x86() -> bool:
    return platform.machine() in ("x86_64", "AMD64")


def _tcmalloc() -> list[Path]:
    patterns = ("libtcmalloc_minimal.so.*", "libtcmalloc.so.*")
    machine = f"{platform.machine()}-linux-gnu"
    return [
        path
        for pattern in patterns
        for folder in _LIBRARIES
        for path in sorted([*folder.glob(pattern), *(folder / machine).glob(pattern)])
    ]
