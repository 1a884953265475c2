"""A plan as people and programs read it: rows of a table, lines of an env file, JSON."""

from collections.abc import Mapping
from typing import Any

from berth.fitting import Model
from engine import names
from engine.fit import GB, GIB
from engine.fit.plan import Plan

# GB a second that stores deliver to one reader, where none was measured or given: orders of magnitude.
STORES = {"the hub": 0.1, "a network file system": 1.0, "a local NVMe disk": 3.0}


def rows(model: Model, plan: Plan, rate: float | None, said: tuple[int, int] | None) -> list[tuple[str, str]]:
    """The table, without the lines for the env file."""
    shape, card, tried = plan.shape, plan.card, plan.tried
    heads = f"{shape.heads} heads, {shape.kv_heads} of keys and values"
    if any(one.latent for one in shape.attention):
        heads = f"{shape.heads} heads, latent attention"
    found = [
        ("model", f"{model.name} ({shape.kind}: {shape.layers} layers, {heads})"),
        ("weights", f"{gb(plan.weights)} = {gib(plan.weights)} ({_stored(model)}{model.source})"),
        ("KV cache", f"{plan.token / 1024:.4g} KiB a token; {gib(plan.request)} for {plan.context:,} tokens"),
        ("card", f"{card.name}: {gb(card.memory)} = {gib(card.memory)}, of which vLLM may use {gib(tried.usable)}"),
        ("at least", _least(plan)),
        ("to serve", _layout(plan)),
        (
            "on each card",
            f"weights {gib(tried.weights)}, estimated reserve {gib(tried.reserve)}, "
            f"left for the KV cache {gib(max(0, tried.room))}",
        ),
    ]
    if plan.layout is not None:
        requests = plan.tokens / plan.context
        found.append(
            ("then", f"{plan.tokens:,} tokens of KV cache: {requests:.1f} requests of {plan.context:,} tokens")
        )
    if shape.longest and plan.context > shape.longest:
        found.append(("but", f"the model was made for {shape.longest:,} tokens, and vLLM refuses longer requests"))
    if said and plan.layout and said != (plan.layout.tensor, plan.layout.pipeline):
        found.append(("settings say", f"tensor parallel {said[0]} x pipeline parallel {said[1]}"))
    processes, cached = plan.host_memory
    kept = f"; {gib(cached)} also keep the weights in memory for the next start" if cached > processes else ""
    found.append(("host memory", f"{gib(processes)}{kept}"))
    found.append(("weights read in", "; ".join(f"{_time(seconds)} {how}" for how, seconds in _reading(plan, rate))))
    return found


def _stored(model: Model) -> str:
    """How the files hold the weights: quantization and dtypes."""
    method = str(model.shape.quantization.get("quant_method") or "")
    alone = len(model.stored) == 1
    dtypes = [dtype if alone else f"{dtype} {gb(size)}" for dtype, size in model.stored.items() if size]
    said = [*([method] if method else []), *([", ".join(dtypes)] if dtypes else [])]
    return "".join(f"{part}; " for part in said)


def _least(plan: Plan) -> str:
    if plan.card.device == "cpu":
        return f"{gib(plan.weights + plan.request)} for weights and one request"
    more = plan.least.with_one_request
    size = f"{plan.card.label / GB:.0f} GB a card, nothing kept back"
    return f"{_cards(plan.least.weights)} for the weights, {more} with one such request (bare sizes, {size})"


def _layout(plan: Plan) -> str:
    if plan.layout is None:
        asked = f"{plan.wish.concurrency} requests" if plan.wish.concurrency > 1 else "one request"
        longest = f"; the longest that fits: {plan.longest:,}" if plan.longest > 0 else ""
        return f"does not fit: {asked} of {plan.context:,} tokens{longest}"
    if plan.card.device == "cpu":
        return "fits into this machine's memory"
    hosts = plan.layout.pipeline
    spread = f"tensor parallel {plan.layout.tensor}" + (
        f" x pipeline parallel {hosts} on {hosts} hosts" if hosts > 1 else ""
    )
    return f"{_cards(plan.layout.cards)}: {spread}"


def env_lines(model: Model, plan: Plan) -> list[str]:
    """What to put into the env file; empty where nothing fits."""
    if plan.layout is None:
        return []
    lines = [f"{names.MODEL}={model.name}", f"VLLM_MAX_MODEL_LEN={plan.context}"]
    if plan.card.device != "cpu":
        lines.append(f"VLLM_TP_SIZE={plan.layout.tensor}")
    if plan.layout.pipeline > 1:
        lines += [f"VLLM_PP_SIZE={plan.layout.pipeline}", f"BERTH_NODES={plan.layout.pipeline}"]
    if plan.wish.concurrency > 1:
        lines.append(f"VLLM_MAX_NUM_SEQS={plan.wish.concurrency}")
    if plan.wish.cache_dtype != "auto":
        lines.append(f"VLLM_KV_CACHE_DTYPE={plan.wish.cache_dtype}")
    return lines


def facts(model: Model, plan: Plan, rate: float | None) -> Mapping[str, Any]:
    """What --json prints. Sizes in bytes, times in seconds."""
    processes, cached = plan.host_memory
    layout = plan.layout
    return {
        "model": model.name,
        "fits": layout is not None,
        "weights": {
            "bytes": plan.weights,
            "stored": dict(model.stored),
            "quantization": model.shape.quantization.get("quant_method"),
            "source": model.source,
        },
        "kv_cache": {
            "bytes_per_token": plan.token,
            "context": plan.context,
            "bytes_per_request": plan.request,
            "tokens": plan.tokens,
            "longest": plan.longest,
        },
        "card": {"name": plan.card.name, "device": plan.card.device, "bytes": plan.card.memory},
        "cards": {
            "for_weights": plan.least.weights,
            "with_one_request": plan.least.with_one_request,
            "to_serve": layout.cards if layout else None,
            "tensor_parallel": layout.tensor if layout else None,
            "pipeline_parallel": layout.pipeline if layout else None,
        },
        "each_card": {
            "usable": plan.tried.usable,
            "weights": plan.tried.weights,
            "reserve": plan.tried.reserve,
            "kv_cache": max(0, plan.tried.room),
        },
        "host_memory": {"processes": processes, "with_weights_kept": cached},
        "reading_weights": {how: round(seconds, 1) for how, seconds in _reading(plan, rate)},
        "env": env_lines(model, plan),
    }


def _reading(plan: Plan, rate: float | None) -> list[tuple[str, float]]:
    """Seconds until one host has read its share of the weights."""
    hosts = plan.tried.pipeline
    if rate:
        return [(f"at {rate / GB:.3g} GB/s", plan.weights / hosts / rate)]
    return [(f"from {store} at {speed:g} GB/s", plan.weights / hosts / (speed * GB)) for store, speed in STORES.items()]


def gb(count: int) -> str:
    """Bytes in GB of 10^9."""
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / 10**6:.3g} MB"


def gib(count: int) -> str:
    """Bytes in GiB of 2^30."""
    return f"{count / GIB:.2f} GiB" if count >= GIB // 4 else f"{count / (1 << 20):.3g} MiB"


def _time(seconds: float) -> str:
    if seconds < 1:
        return "under 1 s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _cards(count: int) -> str:
    return f"{count} card{'s' if count != 1 else ''}"
