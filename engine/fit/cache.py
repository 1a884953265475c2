"""What the KV cache costs, counted as vLLM 0.32 does: blocks of tokens, drawn by groups of layers from one pool."""

from dataclasses import dataclass
from math import ceil

from engine.fit.shape import FULL, STATE, WINDOW, Attention, Shape, Unreadable

BLOCK = 16  # tokens; vLLM's default on GPUs
_BLOCKS = {"cpu": 128, "hpu": 128}
_LATENT_BLOCK_ON_CPU = 16  # the only one that its kernel is compiled for
_SCALE = 4  # bytes of a scale for each token and head

# Bits of one number in the cache, and whether a scale for each token and head comes along.
_FORMATS = {
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc"), (8, False)),
    **dict.fromkeys(("float16", "bfloat16"), (16, False)),
    **dict.fromkeys(("int8_per_token_head", "fp8_per_token_head"), (8, True)),
    "int4_per_token_head": (4, True),
}


@dataclass(frozen=True)
class Group:
    """Layers that share a table of blocks, on one card."""

    kind: str
    layers: int
    block: int  # tokens
    window: int | None = None
    states: int = 1  # of a request in layers that keep states

    def blocks(self, tokens: int, in_flight: int) -> int:
        """Blocks that a request of so many tokens holds at most."""
        if self.kind == STATE:
            return self.states
        if self.kind == FULL:
            return ceil(tokens / self.block)
        kept = (self.window or tokens) - (self.kind == WINDOW)
        return ceil(min(kept + in_flight, tokens) / self.block) + (self.kind == WINDOW)


@dataclass(frozen=True)
class Cache:
    """The cache on one card. `block_bytes` is what one block takes, in all the layers of the widest group."""

    groups: tuple[Group, ...]
    block_bytes: int
    in_flight: int  # tokens of the batches that are under way, which a window keeps as well

    def blocks(self, tokens: int) -> int:
        """Blocks of one request of so many tokens, in all groups."""
        return sum(group.blocks(tokens, self.in_flight) for group in self.groups)

    def request_bytes(self, tokens: int) -> int:
        """Bytes that one request of so many tokens takes on one card, rounded up to blocks."""
        return self.blocks(tokens) * self.block_bytes

    def needed(self, tokens: int, requests: int) -> int:
        """Bytes for so many requests at once, with the one block that vLLM keeps for itself."""
        return (self.blocks(tokens) * requests + 1) * self.block_bytes

    def capacity(self, room: int, tokens: int) -> int:
        """Tokens that vLLM reports for so many bytes ("KV cache size"), when requests may be `tokens` long."""
        return int(room // self.block_bytes / self.blocks(tokens) * tokens)

    def longest(self, room: int, at_most: int) -> int:
        """The longest single request that so many bytes hold, in tokens; 0 where they hold none."""
        low, high = 0, at_most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.needed(middle, 1) <= room else (low, middle - 1)
        return low


def token_bytes(attention: Attention, shape: Shape, dtype: str = "auto", tensor: int = 1) -> int:
    """Bytes that one token takes in one layer, on one of `tensor` cards. Raises Unreadable for an unknown dtype."""
    if dtype in ("auto", ""):
        bits, scaled = shape.dtype_bytes * 8, False
    elif dtype in _FORMATS:
        bits, scaled = _FORMATS[dtype]
    else:
        raise Unreadable(f"the size of a KV cache in {dtype} is not known here")
    if attention.latent:
        return attention.head_size * bits // 8
    heads = max(1, attention.kv_heads // tensor)
    return 2 * heads * (attention.head_size * bits // 8 + (_SCALE if scaled else 0))


def of(
    shape: Shape,
    *,
    device: str = "cuda",
    dtype: str = "auto",
    block: int | None = None,
    tensor: int = 1,
    pipeline: int = 1,
    in_flight: int = 2048,
    prefix_caching: bool = True,
) -> Cache:
    """The cache of a model on one of `tensor` x `pipeline` cards. Raises Unreadable for a cache that is not known.

    `block` is --block-size where it is set; `in_flight` the tokens of all batches that vLLM has under way. With prefix
    caching a layer keeps two states for a request: the current one, and that at the last full block.
    """
    size = block or _BLOCKS.get(device, BLOCK)
    if device == "cpu" and any(one.latent for one in shape.attention):
        size = _LATENT_BLOCK_ON_CPU
    if not shape.attention:
        raise Unreadable("a model without attention has no KV cache")
    costs = {one.kind: token_bytes(one, shape, dtype, tensor) for one in shape.attention}
    if shape.states is not None:
        size = _block_for_states(shape, size, max(costs.values()), tensor)
    page = size * max(costs.values())
    parts = [(one.kind, one.layers, size, one.window) for one in shape.attention]
    if shape.states is not None:
        parts.append((STATE, shape.states.layers, size, None))
    wide = _layers_of_a_group([layers for _, layers, _, _ in parts])
    groups = tuple(
        Group(kind, ceil(wide / pipeline), tokens, window, 2 if prefix_caching else 1)
        for kind, layers, tokens, window in parts
        for _ in range(ceil(layers / wide))
    )
    return Cache(groups, page * ceil(wide / pipeline), in_flight)


def _layers_of_a_group(counts: list[int]) -> int:
    """As many layers as the rarest kind has; as the commonest, where that is not much more (padding is cheaper)."""
    return max(counts) if max(counts) < min(counts) * 1.5 else min(counts)


def _block_for_states(shape: Shape, block: int, cost: int, tensor: int) -> int:
    """Tokens of a block that is at least as large as one state, since all layers' blocks must be alike."""
    assert shape.states is not None
    convolution, recurrence = shape.states.elements
    wide = 4 if shape.states.wide else shape.dtype_bytes
    state = (convolution * shape.dtype_bytes + recurrence * wide) // tensor
    return block * ceil(state / (block * cost))
