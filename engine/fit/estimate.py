"""How many parameters a configuration comes to, and what they weigh: where no weights can be looked at."""

from collections.abc import Mapping
from typing import Any

from engine.fit.shape import Shape

# Families whose feed-forward layers have two matrices, not three.
_UNGATED = {"falcon", "RefinedWeb", "RefinedWebModel", "gpt2", "gpt_neox", "gpt_bigcode", "opt", "bloom", "mpt", "phi"}
_EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")


def parameters(shape: Shape) -> tuple[int, int]:
    """Parameters in matrices that quantization makes smaller, and in those that it leaves (embeddings, norms).

    Exact for Llama, Mistral, Mixtral, Qwen2 and Qwen3 and their like; within a few per cent for DeepSeek's.
    """
    config, hidden = shape.config, shape.hidden
    matrices = shape.layers * _attention(shape) + _feed_forward(shape)
    tied = bool(config.get("tie_word_embeddings", shape.kind.startswith("gemma")))
    rest = shape.vocabulary * hidden * (1 if tied else 2) + hidden * (2 * shape.layers + 1) + _small(shape)
    return matrices, rest


def weight_bytes(shape: Shape, quantization: str | None = None) -> int:
    """Bytes of the weights as vLLM holds them, from the configuration alone."""
    matrices, rest = parameters(shape)
    bits = bits_of(shape, quantization)
    experts_only = str(shape.quantization.get("quant_method")) == "mxfp4"  # gpt-oss: the rest stays in 16 bits
    if experts_only:
        dense = shape.layers * _attention(shape)
        matrices, rest = matrices - dense, rest + dense
    return int(matrices * bits / 8) + rest * shape.dtype_bytes


def bits_of(shape: Shape, quantization: str | None = None) -> float:
    """Bits of one parameter in the matrices, scales included; `quantization` is --quantization where it is set."""
    said = shape.quantization
    method = str(said.get("quant_method") or quantization or "").lower()
    if method in ("fp8", "inc", "fbgemm_fp8", "experts_int8", "ptpc_fp8"):
        return 8.0
    if method == "mxfp4":
        return 4.25
    if method in ("awq", "gptq", "awq_marlin", "gptq_marlin", "auto-round"):
        group = said.get("group_size", said.get("q_group_size", 128))
        return _with_scales(said.get("bits", said.get("w_bit", 4)), group)
    if method == "bitsandbytes":
        return 4.5 if said.get("load_in_4bit", True) else 8.0
    if method == "compressed-tensors":
        groups = said.get("config_groups")
        first: object = next(iter(groups.values()), {}) if isinstance(groups, dict) else {}
        weights = first.get("weights") if isinstance(first, dict) else None
        if isinstance(weights, dict):
            return _with_scales(weights.get("num_bits", 16), weights.get("group_size"))
    return shape.dtype_bytes * 8.0


def _with_scales(bits: object, group: object) -> float:
    """Bits of a parameter whose group shares a 16-bit scale and a zero point."""
    count = float(bits) if isinstance(bits, int) and 0 < bits <= 16 else 4.0
    return count + (16 + count) / group if isinstance(group, int) and group > 0 and count < 8 else count


def _attention(shape: Shape) -> int:
    config, hidden, heads = shape.config, shape.hidden, shape.heads
    latent = next((one for one in shape.attention if one.latent), None)
    if latent is not None:
        rank, plain = _int(config, "kv_lora_rank"), _int(config, "qk_nope_head_dim")
        rotary, values = _int(config, "qk_rope_head_dim"), _int(config, "v_head_dim")
        queries = _int(config, "q_lora_rank")
        asked = queries * (hidden + heads * (plain + rotary)) if queries else hidden * heads * (plain + rotary)
        return asked + hidden * (rank + rotary) + rank * heads * (plain + values) + heads * values * hidden
    if not shape.attention:
        return 0
    size = shape.attention[0].head_size
    return 2 * hidden * heads * size + 2 * hidden * shape.attention[0].kv_heads * size


def _feed_forward(shape: Shape) -> int:
    config, hidden = shape.config, shape.hidden
    matrices = 2 if shape.kind in _UNGATED else 3
    inner = _int(config, "intermediate_size", "ffn_hidden_size", "n_inner") or 4 * hidden
    dense = matrices * hidden * inner
    experts = next((found for name in _EXPERTS if (found := _int(config, name))), 0)
    if not experts:
        return shape.layers * dense
    inner = _int(config, "moe_intermediate_size") or inner
    shared = _int(config, "shared_expert_intermediate_size") or inner * _int(config, "n_shared_experts")
    sparse = 3 * hidden * (experts * inner + shared) + hidden * experts
    first = min(shape.layers, _int(config, "first_k_dense_replace"))
    return first * dense + (shape.layers - first) * sparse


def _small(shape: Shape) -> int:
    """Norms and biases inside attention."""
    config, size = shape.config, shape.attention[0].head_size if shape.attention else 0
    if any(one.latent for one in shape.attention):
        return shape.layers * (_int(config, "q_lora_rank") + _int(config, "kv_lora_rank"))
    norms = 2 * size if shape.kind.startswith(("qwen3", "gemma3")) else 0
    biased = bool(config.get("attention_bias", shape.kind == "qwen2"))
    biases = size * (shape.heads + 2 * shape.kv_heads) if biased else 0
    return shape.layers * (norms + biases)


def _int(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40:
            return value
    return 0
