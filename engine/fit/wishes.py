"""What settings ask of the memory: how long requests may be, how the cache is kept, how the model is spread."""

from collections.abc import Mapping

from engine.fit import GIB
from engine.fit.plan import UTILIZATION, Wish

_HUMAN = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def of(values: Mapping[str, str], environ: Mapping[str, str]) -> Wish:
    """The wish that flags, by name, and vLLM's own variables come to. What cannot be read counts as not said."""
    space = number(environ.get("VLLM_CPU_KVCACHE_SPACE"))
    return Wish(
        context=number(values.get("max-model-len")),
        cache_dtype=values.get("kv-cache-dtype") or "auto",
        block=number(values.get("block-size")),
        utilization=_share(values.get("gpu-memory-utilization")),
        batched_tokens=number(values.get("max-num-batched-tokens")),
        sequences=number(values.get("max-num-seqs")),
        tensor=number(values.get("tensor-parallel-size")),
        pipeline=number(values.get("pipeline-parallel-size")),
        eager=values.get("enforce-eager") == "true",
        prefix_caching=values.get("enable-prefix-caching") != "false",
        cache_bytes=space * GIB if space else number(values.get("kv-cache-memory-bytes")),
    )


def number(text: str | None) -> int | None:
    """A whole number above 0 as vLLM's parser reads it (4096, 4k, 4K); None for all else, such as `auto` and -1."""
    text = (text or "").strip()
    try:
        found = int(float(text[:-1]) * _HUMAN[text[-1]]) if text[-1:] in _HUMAN else int(text)
    except (ValueError, OverflowError):
        return None
    return found if found > 0 else None


def _share(text: str | None) -> float:
    try:
        share = float(text or UTILIZATION)
    except ValueError:
        return UTILIZATION
    return share if 0 < share <= 1 else UTILIZATION
