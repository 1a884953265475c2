"""HPU: Intel Gaudi 2 and 3, through the vllm-gaudi plugin."""

import os
from collections.abc import Mapping
from pathlib import Path

from engine.decisions import Decision, Situation
from engine.devices import Detection
from engine.fit import cards
from engine.messages import Exit, Problem
from engine.quantize import gaudi

_BUCKETS = tuple(
    f"VLLM_{phase}_{kind}_BUCKET_{bound}"
    for phase, kinds in (("PROMPT", ("BS", "QUERY", "CTX", "SEQ")), ("DECODE", ("BS", "BLOCK")))
    for kind in kinds
    for bound in ("MIN", "STEP", "MAX", "PAD_MAX", "PAD_PERCENT")
)

# Names that the plugin reads to choose and size kernels; every one has a default that fits the model and the card.
_KERNELS = """
    ALIBI_USE_FLOAT32_BIASES COMPACT_GDN CONFIG_HIDDEN_LAYERS COS_SIN_RECOMPUTE DISABLE_MARK_SCALES_AS_CONST
    DYNAMIC_KV_QUANT FLATTEN_INPUT FP32_SOFTMAX FP32_SOFTMAX_VISION FUSED_BLOCK_SOFTMAX FUSED_BLOCK_SOFTMAX_ADJUSTMENT
    FUSEDSDPA_SLIDE_THLD GDN_COMPUTE_FP32 GDN_EXACT_SOLVE GDN_LEGACY_PHASE_B HPU_FSDPA_SLICE_CHUNK_SIZE
    HPU_FSDPA_SLICE_ENABLED HPU_FSDPA_SLICE_SEQ_LEN_THLD HPU_FSDPA_SLICE_WITH_GRAPH_BREAKS MAMBA_USE_PYTORCH
    MAMBA_USE_SELECTIVE_STATE_UPDATE_REF_PT MERGED_PREFILL MINIMAX_M3_MOE_DECODE_GATHER
    MINIMAX_M3_MOE_GATHER_MAX_TOKENS MINIMAX_M3_MOE_TOKEN_TILE MOE_CHUNK MOE_TOKEN_BOUNDARY NAIVE_IMPL
    PER_TOKEN_KV_SCALING_SUPPORT PROMPT_USE_FLEX_ATTENTION PROMPT_USE_FUSEDSDPA ROW_PARALLEL_CHUNKS
    ROW_PARALLEL_CHUNK_THRESHOLD SCALE_ADJUSTMENT T_COMPILE_DYNAMIC_SHAPES T_COMPILE_FULLGRAPH
    T_COMPILE_REGIONAL_COMPILATION USE_DISPATCH_FN USE_HYBRID_CACHE USE_NAIVE_MAMBA_CACHE_SHARING
"""
_TRANSFER = """
    HPU_HETERO_KV_LAYOUT HPU_NIXL_JOINT_KV HPU_NIXL_STAGING_SLOTS KV_CONNECTOR NIXL_ABORT_REQUEST_TIMEOUT
    NIXL_DEVICE_TO_DEVICE
"""
_DIAGNOSIS = "DEBUG PROFILE_DECODE PROFILE_PROMPT PROFILE_STEPS PT_PROFILE TORCH_PROFILER_DIR"

# Source: vllm-gaudi v0.26.0, docs/configuration/env_variables.md and the code that reads them.
VARIABLES: Mapping[str, str] = {
    "IF_FP8_QUANTIZATION": "serve in FP8 by Intel Neural Compressor: adds the two flags and finds QUANT_CONFIG",
    "QUANT_CONFIG": "the JSON file that calibration wrote",
    "VLLM_SKIP_WARMUP": "start without compiling graphs first; for development",
    "VLLM_BUCKETING_STRATEGY": "exp, lin or pad",
    "VLLM_BUCKETING_FROM_FILE": "a file with an explicit list of buckets",
    "VLLM_ENABLE_BUCKETING": "true by default",
    "VLLM_EXPONENTIAL_BUCKETING": "older form of VLLM_BUCKETING_STRATEGY",
    **dict.fromkeys(_BUCKETS, "bounds of the shapes that warm-up compiles"),
    "VLLM_CONTIGUOUS_PA": "contiguous paged attention; on where prefix caching is off",
    "VLLM_DEFRAG": "defragment the KV cache; follows VLLM_CONTIGUOUS_PA",
    "VLLM_DEFRAG_THRESHOLD": "32 by default",
    "VLLM_DEFRAG_WITH_GRAPHS": "defragment with compiled graphs",
    "VLLM_GRAPH_RESERVED_MEM": "share of usable memory for graphs, 0.1 by default",
    "VLLM_HPU_FORCE_CHANNEL_FP8": "turn block-FP8 checkpoints into per-channel FP8",
    "VLLM_HPU_MULTI_MODEL_CONFIG": "models that one process switches between",
    "VLLM_WEIGHT_LOAD_FORCE_SYNC": "true by default",
    "VLLM_DEVELOPER_MODE": "a log line for each bucket at warm-up",
    "VLLM_FULL_WARMUP": "stop at any recompilation; never in production",
    "VLLM_PROFILER_ENABLED": "write a trace of the engine",
    "VLLM_MULTIMODAL_BUCKETS": "numbers of image patches that warm-up compiles, comma-separated; None for no buckets",
    "VLLM_MULTIMODAL_RESOLUTIONS": "image sizes that warm-up compiles: 1024x768,768x1024",
    **dict.fromkeys((f"VLLM_{name}" for name in _KERNELS.split()), "choice or size of a kernel"),
    **dict.fromkeys((f"VLLM_{name}" for name in _TRANSFER.split()), "moving the KV cache between servers"),
    **dict.fromkeys((f"VLLM_{name}" for name in _DIAGNOSIS.split()), "profiling and debugging of the plugin"),
    "VLLM_USE_FAKE_HPU": "the plugin's own tests",
    "VLLM_ENGINE_ITERATION_TIMEOUT_S": "raise for long contexts and FP8",
    "PT_HPU_RECIPE_CACHE_CONFIG": "path,delete,MB of the cache of compiled recipes",
    "PT_HPU_LAZY_MODE": "1 only with Gaudi's own build of PyTorch",
    "PT_HPU_ENABLE_LAZY_COLLECTIVES": "for tensor parallelism in lazy mode",
    "PT_HPU_WEIGHT_SHARING": "the plugin sets 0",
    "RUNTIME_SCALE_PATCHING": "shorter FP8 warm-up",
    "FUSER_ENABLE_MULTI_THREADED_INVOCATIONS": "graphs compile in parallel; the plugin sets 1",
    "PT_HPU_METRICS_GC_DETAILS": "count compilations of graphs",
    "PT_HPUGRAPH_DISABLE_TENSOR_CACHE": "false for LLaVA, Qwen and RoBERTa",
    "PT_HPU_SDPA_BC_FACTOR": "choice or size of a kernel",
    "PT_HPU_SDPA_QKV_SLICE_MODE_FWD": "choice or size of a kernel",
    "ENABLE_EXPERIMENTAL_FLAGS": "true, with the next one, for Qwen3.5",
    "ENABLE_SKIP_REMOVAL_OF_GRAPH_INPUT_IDENTITY_NODES": "true for Qwen3.5",
    "HABANA_VISIBLE_DEVICES": "cards by index, or all; read by the container runtime",
    "HABANA_VISIBLE_MODULES": "cards by module id; read by the plugin",
    "HABANA_LOGS": "folder of the Gaudi runtime's logs",
}
STALE: Mapping[str, str] = {
    "PT_HPU_LAZY_ACC_PAR_MODE": "nothing reads it since Gaudi's software of 2024",
    "VLLM_CPU_KVCACHE_SPACE": "only the CPU reads it; VLLM_GPU_MEMORY_UTILIZATION sets the KV cache of a Gaudi",
}
_USE_FP8 = "on CUDA use VLLM_QUANTIZATION=fp8 and VLLM_KV_CACHE_DTYPE=fp8, or an FP8 checkpoint; on CPU leave it out"
ELSEWHERE: Mapping[str, str] = {
    "IF_FP8_QUANTIZATION": _USE_FP8,
    "VLLM_SKIP_WARMUP": "VLLM_ENFORCE_EAGER=true skips compilation on other devices",
    **dict.fromkeys(
        ("VLLM_BUCKETING_STRATEGY", "VLLM_BUCKETING_FROM_FILE", "VLLM_ENABLE_BUCKETING", *_BUCKETS),
        "other devices have no buckets; VLLM_CUDAGRAPH_CAPTURE_SIZES lists the batch sizes that CUDA captures",
    ),
}
ONLY_VALUES: Mapping[tuple[str, str], str] = {
    ("kv-cache-dtype", "fp8_inc"): "use VLLM_KV_CACHE_DTYPE=fp8 on CUDA, or leave it out",
    ("quantization", "inc"): "use VLLM_QUANTIZATION=fp8 on CUDA; a checkpoint that is quantised already says so itself",
}

_ACCEL = Path("/sys/class/accel")


def detect() -> Detection | None:
    """Cards that the habanalabs driver shows."""
    cards = _cards()
    return Detection(len(cards), f"{len(cards)} under {_ACCEL}") if cards else None


def _cards() -> list[Path]:
    """Accelerators of other makers share /sys/class/accel; the driver's name tells them apart."""
    if not _ACCEL.is_dir():
        return []
    cards = [card for card in sorted(_ACCEL.glob("accel[0-9]*")) if (Path("/dev/accel") / card.name).exists()]
    return [card for card in cards if os.path.realpath(card / "device" / "driver").endswith("habanalabs")]


def visible_devices(environ: Mapping[str, str]) -> int | None:
    """Cards of this machine, cut down to HABANA_VISIBLE_MODULES; None without the driver."""
    cards = _cards()
    if not cards:
        return None
    modules = environ.get("HABANA_VISIBLE_MODULES", "all")
    return len(cards) if modules == "all" else min(len(cards), len(modules.split(",")))


def room(situation: Situation) -> int | None:
    """One card's memory, by its generation, as the driver tells only that. The plugin's share is of what is left."""
    card = cards.table().get({"g2": "gaudi2", "g3": "gaudi3"}.get(_generation() or "", ""))
    return card.memory if card else None


def cannot_serve(scheme: str) -> tuple[str, str] | None:
    """INT8 gains nothing (vllm-gaudi 0.26, ops/hpu_compressed_tensors.py: W8A8Int8_BF16Fallback)."""
    if scheme != "w8a8":
        return None
    return "on Gaudi INT8 weights are turned back into BF16", "use fp8-inc, calibrated for the card, or fp8-dynamic"


def problems(situation: Situation) -> list[Problem]:
    """The plugin has no pipeline parallelism."""
    if situation.number("pipeline-parallel-size") == 1:
        return []
    return [
        Problem(
            f"VLLM_PP_SIZE={situation.values['pipeline-parallel-size']}: Gaudi has no pipeline parallelism in vLLM",
            "set VLLM_PP_SIZE=1 and raise VLLM_TP_SIZE (1, 2, 4 or 8)",
        )
    ]


def preflight(situation: Situation) -> list[Problem]:
    """A card must be there, and for FP8 the file that calibration wrote for it."""
    found = []
    if not _cards():
        found.append(
            Problem(
                "no Gaudi card is visible here",
                "run the container with `runtime: habana` or with its devices (compose/hpu-devices.yaml)",
                Exit.MISSING_PREREQUISITE,
            )
        )
    if _by_inc(situation):
        count = situation.number("tensor-parallel-size")
        if wrong := gaudi.problem(quant_config(situation), _generation(), count):
            found.append(wrong)
    return found


def _by_inc(situation: Situation) -> bool:
    return bool(situation.environ.get("IF_FP8_QUANTIZATION")) or situation.values.get("quantization") == "inc"


def quant_config(situation: Situation) -> Path:
    """The calibration's result: QUANT_CONFIG, else HF_HOME/inc/<model in lower case>/maxabs_quant_<g2|g3>.json."""
    if given := situation.environ.get("QUANT_CONFIG"):
        return Path(given)
    return gaudi.quant_config(situation.model or "", situation.environ, _generation())


def _generation() -> str | None:
    """`g2` or `g3`, from the driver's code name (GAUDI2…, GAUDI3…); None where it tells none."""
    for card in _cards():
        try:
            name = (card / "device" / "device_type").read_text(encoding="utf-8")
        except OSError:
            continue
        return "g3" if "GAUDI3" in name else "g2" if "GAUDI2" in name else None
    return None


def tune(situation: Situation) -> list[Decision]:
    """FP8 by Intel Neural Compressor when asked for; never a QUANT_CONFIG without it."""
    decisions = []
    if situation.environ.get("IF_FP8_QUANTIZATION"):
        for flag, value in (("quantization", "inc"), ("kv-cache-dtype", "fp8_inc")):
            if flag not in situation.values:
                decisions.append(Decision(f"--{flag} {value}", "IF_FP8_QUANTIZATION=true", args=(f"--{flag}", value)))
    if _by_inc(situation):
        path = str(quant_config(situation))
        if situation.environ.get("QUANT_CONFIG") != path:
            decisions.append(Decision(f"QUANT_CONFIG={path}", "FP8, by the model's name", {"QUANT_CONFIG": path}))
    elif "QUANT_CONFIG" in situation.environ:
        why = "its mere presence changes how the plugin loads weights, and IF_FP8_QUANTIZATION is not set"
        decisions.append(Decision("QUANT_CONFIG removed", why, {"QUANT_CONFIG": None}))
    if "VLLM_WORKER_MULTIPROC_METHOD" not in situation.environ:
        why = "the plugin forces it, and warns when it is not set"
        decisions.append(Decision("VLLM_WORKER_MULTIPROC_METHOD=spawn", why, {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}))
    return decisions
