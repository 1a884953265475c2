"""CUDA: NVIDIA GPUs."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from engine.decisions import Decision, Situation
from engine.devices import Detection
from engine.fit import wishes
from engine.messages import Exit, Problem
from engine.quantize.schemes import FOR_GAUDI, GAUDI

VARIABLES: Mapping[str, str] = {}
STALE: Mapping[str, str] = {
    "PT_HPU_LAZY_ACC_PAR_MODE": "it was read by Gaudi's software of 2024; nothing reads it now",
    "VLLM_CPU_KVCACHE_SPACE": "only the CPU reads it; VLLM_GPU_MEMORY_UTILIZATION sets the KV cache of a GPU",
}
ELSEWHERE: Mapping[str, str] = {}
ONLY_VALUES: Mapping[tuple[str, str], str] = {}

# CUDA 13, which vLLM's wheels are built for since 0.21, needs this driver branch or newer (CUDA 13.0 release notes).
MINIMUM_DRIVER = 580

_ASK_S = 20.0  # a driver without persistence mode wakes up first

# Libraries that compile kernels at start, each with a cache of its own.
_CACHES = {
    "CUDA_CACHE_PATH": "cuda",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "HUMMING_CACHE_DIR": "humming",
    "MINFER_FMHA_CACHE_DIR": "fmha",
    "QUACK_CACHE_DIR": "quack",
    "TILELANG_CACHE_DIR": "tilelang",
    "TVM_FFI_CACHE_DIR": "tvm-ffi",
    "XDG_CACHE_HOME": "other",
}

_DRIVER_VERSION = Path("/proc/driver/nvidia/version")
_NODES = Path("/dev")  # /proc shows a container every GPU of the host, also those that it was not given


def detect() -> Detection | None:
    """GPUs that the NVIDIA driver shows."""
    if count := _gpus():
        return Detection(count, f"{count} under {_NODES}")
    return Detection(1, "WSL's /dev/dxg") if _has_wsl_gpu() else None


def visible_devices(environ: Mapping[str, str]) -> int | None:
    """GPUs of this machine, cut down to CUDA_VISIBLE_DEVICES; None where they cannot be counted."""
    count = _gpus()
    if count == 0:
        return None
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    return count if listed is None else len([index for index in listed.split(",") if index.strip()])


def _gpus() -> int:
    return len([node for node in _NODES.glob("nvidia*") if re.fullmatch(r"nvidia\d+", node.name)])


def _has_wsl_gpu() -> bool:
    """Windows shows a Linux beside it all its GPUs as one node."""
    return (_NODES / "dxg").exists()


def room(situation: Situation) -> int | None:
    """The share of the smallest visible GPU's memory that vLLM takes, as the driver reports it."""
    if not _gpus():
        return None
    sizes = _memory(situation.environ.get("CUDA_VISIBLE_DEVICES"))
    # A size that is given for the cache takes the share's place.
    whole = "kv-cache-memory-bytes" in situation.values
    share = 1.0 if whole else wishes.of(situation.values, situation.environ).utilization
    return int(min(sizes) * share) if sizes else None


def _memory(visible: str | None) -> list[int]:
    """Bytes of each visible GPU; empty where nvidia-smi is not there or tells none."""
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    wanted = None if visible is None else [word.strip() for word in visible.split(",") if word.strip()]
    found = []
    for line in told.splitlines():
        index, _, rest = line.partition(",")
        uuid, _, size = rest.partition(",")
        named = wanted is None or any(index.strip() == word or uuid.strip().startswith(word) for word in wanted)
        if named and size.strip().isdigit():
            found.append(int(size) << 20)
    return found


def cannot_serve(scheme: str) -> tuple[str, str] | None:
    """What Intel Neural Compressor calibrates is read by Gaudi's plugin alone."""
    return FOR_GAUDI if scheme == GAUDI else None


def problems(situation: Situation) -> list[Problem]:
    """Nothing beyond names and values."""
    return []


def preflight(situation: Situation) -> list[Problem]:
    """A GPU must be there, with a driver that CUDA 13 can use."""
    if detect() is None:
        return [
            Problem(
                "no NVIDIA GPU is visible here",
                "give the container its GPUs (`--gpus all`, NVIDIA's container toolkit on the host) or use env/cpu.env",
                Exit.MISSING_PREREQUISITE,
            )
        ]
    driver = driver_branch()
    if driver is None or driver >= MINIMUM_DRIVER or situation.environ.get("VLLM_ENABLE_CUDA_COMPATIBILITY") == "1":
        return []
    return [
        Problem(
            f"the NVIDIA driver is of branch {driver}; CUDA 13 in this image needs {MINIMUM_DRIVER} or newer",
            "update the host's driver, or on a data-centre GPU set VLLM_ENABLE_CUDA_COMPATIBILITY=1",
            Exit.MISSING_PREREQUISITE,
        )
    ]


def driver_branch() -> int | None:
    """The driver's major version, such as 580; None where no driver is loaded."""
    try:
        match = re.search(r"Kernel Module.*?\s(\d+)\.\d+", _DRIVER_VERSION.read_text(encoding="utf-8"))
    except OSError:
        return None
    return int(match[1]) if match else None


def tune(situation: Situation, toolkit: Path = Path(sys.prefix) / "cuda") -> list[Decision]:
    """Which compiler builds kernels at start, and where they are kept."""
    decisions = []
    # Of several compilers on a machine only one fits PyTorch's headers.
    if "CUDA_HOME" not in situation.environ and toolkit.exists():
        why = "the compiler of the CUDA release that this PyTorch is built for"
        decisions.append(Decision(f"CUDA_HOME={toolkit}", why, {"CUDA_HOME": str(toolkit)}))
    if root := situation.environ.get("VLLM_CACHE_ROOT"):
        places = {name: f"{root}/{place}" for name, place in _CACHES.items() if name not in situation.environ}
        if places:
            why = "kernels that libraries compile are kept with vLLM's own, not in the home folder"
            decisions.append(Decision(f"{len(places)} more caches below {root}", why, places))
    return decisions
