"""What a model's config.json says of its size: layers, heads, and what each layer keeps of a token."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

FULL, WINDOW, CHUNK, STATE = "full", "window", "chunk", "state"

# The families whose attention keeps one compressed vector for each token (multi-head latent attention). vLLM decides
# by the model's type, too, and then by kv_lora_rank; sparse variants keep an indexer's cache beside it.
_SPARSE = {"deepseek_v32", "deepseek_v4", "deepseek_v41", "glm_moe_dsa"}
_LATENT = {
    *("deepseek_v2", "deepseek_v3", "kimi_k2", "longcat_flash", "pangu_ultra_moe", "glm4_moe_lite", "kimi_linear"),
    *_SPARSE,
}
_KINDS = {
    **dict.fromkeys(("full_attention", "attention", "global_attention"), FULL),
    **dict.fromkeys(("sliding_attention", "local_attention"), WINDOW),
    "chunked_attention": CHUNK,
    **dict.fromkeys(("linear_attention", "mamba", "mamba2", "conv", "recurrent"), STATE),
}
# Every so many layers one sees the whole text, where a configuration does not list its layers (transformers' defaults).
_EVERY = {"gemma2": 2, "gemma3_text": 6, "gemma3": 6, "cohere2": 4, "gpt_oss": 2, "llama4_text": 4, "llama4": 4}
_MOST_LAYERS = 4096
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "half": 2, "float": 4}


class Unreadable(Exception):
    """A configuration that does not say what is needed; the text names what is missing."""


@dataclass(frozen=True)
class Attention:
    """The layers of one kind. `window` is the span in tokens of a sliding window or a chunk."""

    kind: str
    layers: int
    kv_heads: int
    head_size: int
    window: int | None = None
    latent: bool = False  # one vector of head_size for keys and values together, the same on every card


@dataclass(frozen=True)
class States:
    """Layers that keep a state of fixed size for each request: linear attention, Mamba."""

    layers: int
    elements: tuple[int, int]  # of the convolution, of the recurrence; divided over the cards
    wide: bool  # the recurrence is kept in 32 bits


@dataclass(frozen=True)
class Shape:
    """A model's size. `dtype_bytes` is that of the numbers it computes with, as vLLM loads it (F32 becomes 16 bits)."""

    kind: str
    layers: int
    hidden: int
    heads: int
    vocabulary: int
    attention: tuple[Attention, ...]
    states: States | None
    longest: int | None
    dtype: str
    dtype_bytes: int
    config: Mapping[str, Any]  # the text model's part
    quantization: Mapping[str, Any]

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values, of the layers that have the fewest."""
        return min((one.kv_heads for one in self.attention), default=self.heads)


def read(config: Mapping[str, Any]) -> Shape:
    """Read a parsed config.json. Raises Unreadable where it is no decoder of a kind that this knows."""
    text = _text_part(config)
    kind = str(text.get("model_type") or config.get("model_type") or "")
    heads = _number(text, "num_attention_heads", "n_head", "n_heads", "num_heads")
    hidden = _number(text, "hidden_size", "n_embd", "d_model")
    layers = _number(text, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    dtype = str(text.get("torch_dtype") or text.get("dtype") or config.get("torch_dtype") or config.get("dtype") or "")
    dtype = dtype.removeprefix("torch.")
    quantization = config.get("quantization_config") or text.get("quantization_config")
    quantization = quantization or config.get("compression_config") or {}
    if layers > _MOST_LAYERS:
        raise Unreadable(f"{layers} layers are more than any model has")
    attention, states = _per_layer(text, kind, layers, heads, hidden)
    return Shape(
        kind=kind,
        layers=layers,
        hidden=hidden,
        heads=heads,
        vocabulary=_number(text, "vocab_size", "padded_vocab_size", default=0),
        attention=attention,
        states=states,
        longest=_longest(text),
        dtype="bfloat16" if dtype in ("", "float32", "float") else dtype,
        dtype_bytes=min(2, _BYTES.get(dtype, 2)),
        config=text,
        quantization=quantization if isinstance(quantization, dict) else {},
    )


def computing_in(shape: Shape, dtype: str) -> Shape:
    """The same model with --dtype; `auto` changes nothing."""
    if dtype not in _BYTES:
        return shape
    return replace(shape, dtype=dtype, dtype_bytes=_BYTES[dtype])


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(config, dict):
        raise Unreadable("config.json holds no object")
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(inner := config.get(name), dict) and ("num_hidden_layers" in inner or "hidden_size" in inner):
            return inner
    return config


def _number(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40:
            return value
    if default is None:
        raise Unreadable(f"config.json does not say {names[0]}")
    return default


def _longest(config: Mapping[str, Any]) -> int | None:
    """The context that vLLM takes when none is set: most kinds of RoPE scaling name a length that is scaled already."""
    length = _number(config, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", default=0)
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(scaling, dict) or "gemma3" in str(config.get("model_type")):
        return length or None
    kind, factor = str(scaling.get("rope_type") or scaling.get("type")), scaling.get("factor")
    if kind in ("su", "longrope"):
        original = config.get("original_max_position_embeddings")
        return original if isinstance(original, int) else length or None
    if kind in ("linear", "dynamic") and isinstance(factor, int | float) and 1 <= factor < 1 << 16:
        length = int(length * factor)
    return length or None


def _per_layer(
    config: Mapping[str, Any], kind: str, layers: int, heads: int, hidden: int
) -> tuple[tuple[Attention, ...], States | None]:
    if kind in _SPARSE:
        raise Unreadable(f"the cache of {kind}, sparse attention with an index beside it, is not known here")
    counts = Counter(_kinds(config, kind, layers))
    latent = kind in _LATENT and isinstance(config.get("kv_lora_rank"), int)
    if latent:
        kv_heads, size = 1, _number(config, "kv_lora_rank") + _number(config, "qk_rope_head_dim", default=0)
    else:
        kv_heads = _kv_heads(config, kind, heads)
        usual = max(1, hidden // heads)
        size = _number(config, "head_dim", "hidden_size_per_head", "attention_head_dim", default=usual)
    window = {WINDOW: config.get("sliding_window"), CHUNK: config.get("attention_chunk_size")}
    found = [
        Attention(name, counts[name], kv_heads, size, _span(window.get(name), name), latent)
        for name in (FULL, WINDOW, CHUNK)
        if counts[name]
    ]
    return tuple(found), _states(config, kind, counts[STATE]) if counts[STATE] else None


def _span(value: object, kind: str) -> int | None:
    if kind == FULL:
        return None
    if isinstance(value, int) and value > 0:
        return value
    raise Unreadable(f"config.json has layers of kind {kind} and does not say how far they see")


def _kv_heads(config: Mapping[str, Any], kind: str, heads: int) -> int:
    if kind in ("falcon", "RefinedWeb", "RefinedWebModel") and not config.get("new_decoder_architecture"):
        return 1 if config.get("multi_query") else heads
    return _number(config, "num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num", default=heads)


def _kinds(config: Mapping[str, Any], kind: str, layers: int) -> list[str]:
    listed = config.get("layer_types") or config.get("layers_block_type")
    if isinstance(listed, list):
        listed = [str(name) for name in listed]
        if unknown := sorted({name for name in listed if name not in _KINDS}):
            raise Unreadable(f"layers of the kind {', '.join(unknown)} are not known here")
        return [_KINDS[name] for name in listed[:layers]]
    if interval := config.get("full_attention_interval"):
        every = interval if isinstance(interval, int) and interval > 0 else 4
        return [FULL if (index + 1) % every == 0 else STATE for index in range(layers)]
    if kind in ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h", "jamba", "zamba2", "bamba"):
        raise Unreadable(f"the layers of {kind} are not known here")
    every = _EVERY.get(kind, 0)
    if every:
        every = _number(config, "sliding_window_pattern", default=every)
        local = CHUNK if kind.startswith("llama4") else WINDOW
        return [FULL if (index + 1) % every == 0 else local for index in range(layers)]
    windowed = config.get("sliding_window") and config.get("use_sliding_window", True)
    if windowed and kind.startswith("qwen"):
        first = _number(config, "max_window_layers", default=layers)
        return [FULL if index < first else WINDOW for index in range(layers)]
    return [WINDOW if windowed else FULL] * layers


def _states(config: Mapping[str, Any], kind: str, layers: int) -> States:
    """The state of gated delta networks, as in Qwen3-Next and Qwen3.5: the only kind that is known here."""
    if "linear_num_value_heads" not in config:
        raise Unreadable(f"the state that {kind or 'this model'} keeps for each request is not known here")
    key_heads, value_heads = _number(config, "linear_num_key_heads"), _number(config, "linear_num_value_heads")
    key_size, value_size = _number(config, "linear_key_head_dim"), _number(config, "linear_value_head_dim")
    channels = 2 * key_heads * key_size + value_heads * value_size
    convolution = channels * (_number(config, "linear_conv_kernel_dim", default=4) - 1)
    wide = str(config.get("mamba_ssm_dtype", "")) == "float32"
    return States(layers, (convolution, value_heads * value_size * key_size), wide)
