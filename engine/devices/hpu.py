"""HPU: Intel Gaudi 2 and 3, through the vllm-gaudi plugin."""

import os
from collections.abc import Mapping
from pathlib import Path

from engine.decisions import Decision, Situation
from engine.devices import Detection
from engine.messages import Exit, Problem

_BUCKETS = (
    *(f"VLLM_PROMPT_{kind}_BUCKET_{part}" for kind in ("BS", "QUERY", "CTX", "SEQ") for part in ("MIN", "STEP", "MAX")),
    *(f"VLLM_DECODE_{kind}_BUCKET_{part}" for kind in ("BS", "BLOCK") for part in ("MIN", "STEP", "MAX")),
    *(
        f"VLLM_{kind}_BUCKET_PAD_{part}"
        for kind in ("PROMPT_QUERY", "PROMPT_CTX", "DECODE_BLOCK")
        for part in ("MAX", "PERCENT")
    ),
)

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
    "VLLM_GRAPH_PROMPT_RATIO": "share of that memory for prompt graphs",
    "VLLM_HPU_FORCE_CHANNEL_FP8": "turn block-FP8 checkpoints into per-channel FP8",
    "VLLM_HPU_MULTI_MODEL_CONFIG": "models that one process switches between",
    "VLLM_WEIGHT_LOAD_FORCE_SYNC": "true by default",
    "VLLM_DEVELOPER_MODE": "a log line for each bucket at warm-up",
    "VLLM_FULL_WARMUP": "stop at any recompilation; never in production",
    "VLLM_PROFILER_ENABLED": "write a trace of the engine",
    "VLLM_FUSED_BLOCK_SOFTMAX_ADJUSTMENT": "kernel choice",
    "VLLM_USE_FAKE_HPU": "the plugin's own tests",
    "VLLM_ENGINE_ITERATION_TIMEOUT_S": "raise for long contexts and FP8",
    "VLLM_RPC_TIMEOUT": "raise for long contexts and FP8",
    "PT_HPU_RECIPE_CACHE_CONFIG": "path,delete,MB of the cache of compiled recipes",
    "PT_HPU_LAZY_MODE": "1 only with Gaudi's own build of PyTorch",
    "PT_HPU_ENABLE_LAZY_COLLECTIVES": "for tensor parallelism in lazy mode",
    "PT_HPU_WEIGHT_SHARING": "the plugin sets 0",
    "RUNTIME_SCALE_PATCHING": "shorter FP8 warm-up",
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

_CALIBRATED = Path("/data/inc")  # where calibration writes, and where containers mount it: the files hold absolute paths
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
    if _by_inc(situation) and not (path := quant_config(situation)).is_file():
        found.append(
            Problem(
                f"QUANT_CONFIG: {path} is not there",
                "calibrate the model for this card first, or set QUANT_CONFIG to the file that calibration wrote",
            )
        )
    return found


def _by_inc(situation: Situation) -> bool:
    return bool(situation.environ.get("IF_FP8_QUANTIZATION")) or situation.values.get("quantization") == "inc"


def quant_config(situation: Situation, calibrated: Path = _CALIBRATED) -> Path:
    """The calibration's result: QUANT_CONFIG, else /data/inc/<model in lower case>/maxabs_quant_<g2|g3>.json."""
    if given := situation.environ.get("QUANT_CONFIG"):
        return Path(given)
    folder = calibrated / (situation.model or "").rstrip("/").rpartition("/")[2].lower()
    written = sorted(folder.glob("maxabs_quant_g[23].json"))
    generation = _generation() or (written[0].stem[-2:] if len(written) == 1 else "g2")
    return folder / f"maxabs_quant_{generation}.json"


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
