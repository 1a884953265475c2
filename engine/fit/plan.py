"""How many cards a model needs, how it is spread over them, and what then fits: every figure of `berth plan`."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from engine import cpu_memory
from engine.fit import GIB, cache
from engine.fit.cache import Cache
from engine.fit.cards import CPU, Card
from engine.fit.shape import Shape

UTILIZATION = 0.92  # vLLM 0.32's own --gpu-memory-utilization
MOST_HOSTS = 16
# Estimates, from the sizes of the tensors of one step; a GPU's own figure stands in vLLM's log after "profiling".
_CONTEXT = int(0.7 * GIB)  # CUDA's context and libraries
_GRAPHS = int(0.8 * GIB)  # captured graphs
_COLLECTIVES = int(0.7 * GIB)  # buffers of NCCL or HCCL, where several cards share a model
_SERVER, _WORKER = 4 * GIB, 3 * GIB  # memory of the host: server and engine; each worker


@dataclass(frozen=True)
class Wish:
    """What is asked for. None stands for what vLLM or the model says."""

    context: int | None = None
    concurrency: int = 1
    cache_dtype: str = "auto"
    block: int | None = None
    utilization: float = UTILIZATION
    batched_tokens: int | None = None
    sequences: int | None = None
    tensor: int | None = None
    pipeline: int | None = None
    eager: bool = False
    cache_bytes: int | None = None
    prefix_caching: bool = True


@dataclass(frozen=True)
class Layout:
    """A model over `tensor` x `pipeline` cards, per card in bytes."""

    tensor: int
    pipeline: int
    usable: int
    weights: int
    reserve: int
    cache: Cache
    cap: int | None = None  # bytes that a setting gives the cache

    @property
    def cards(self) -> int:
        """Cards of one copy of the model."""
        return self.tensor * self.pipeline

    @property
    def room(self) -> int:
        """Bytes of one card that are left for the KV cache; negative where the weights alone do not fit."""
        left = self.usable - self.weights - self.reserve
        return left if self.cap is None else min(left, self.cap)


@dataclass(frozen=True)
class Least:
    """Cards by bare arithmetic: sizes over the label's, nothing kept back, heads not looked at."""

    weights: int
    with_one_request: int


@dataclass(frozen=True)
class Plan:
    """A model on a kind of card. Sizes in bytes."""

    shape: Shape
    card: Card
    wish: Wish
    context: int
    weights: int
    token: int  # of the cache, over all cards
    request: int  # of the cache, one request of `context` tokens, over all cards
    least: Least
    layout: Layout | None  # None: no layout holds it
    tried: Layout  # the layout, or the widest that was tried

    @property
    def tokens(self) -> int:
        """Tokens that the cache holds, as vLLM reports it."""
        room = max(0, self.tried.room)
        if self.card.device == CPU and self.wish.cache_bytes is None:  # the launcher takes no more than is of use
            requests = max(self.wish.concurrency, self.wish.sequences or cpu_memory.DEFAULT_SEQUENCES)
            room = min(room, self.tried.cache.needed(self.context, requests))
        return self.tried.cache.capacity(room, self.context)

    @property
    def longest(self) -> int:
        """The longest single request that fits, at most the model's own length."""
        return self.tried.cache.longest(self.tried.room, self.shape.longest or self.context)

    @property
    def host_memory(self) -> tuple[int, int]:
        """Bytes of one host: what its processes need, and what also keeps the weights cached for the next start."""
        here = min(self.tried.cards, self.card.per_host)
        if self.card.device == CPU:
            needed = self.weights + cpu_memory.HEADROOM + self.tried.cache.needed(self.context, self.wish.concurrency)
            return needed, needed
        processes = _SERVER + here * _WORKER
        return processes, processes + self.tried.weights * here


def make(shape: Shape, weights: int, card: Card, wish: Wish = Wish()) -> Plan:
    """Plan for a model of so many bytes of weights. Raises Unreadable for a cache that is not known."""
    context = wish.context or shape.longest or 4096
    whole = _cache(shape, card, wish, 1, 1)
    request = whole.request_bytes(context)
    token = sum(one.layers * cache.token_bytes(one, shape, wish.cache_dtype) for one in shape.attention)
    bare = Least(ceil(weights / card.label), ceil((weights + request) / card.label)) if card.label else Least(0, 0)
    tried = found = None
    for tensor, pipeline in _layouts(shape, card, wish):
        tried = _layout(shape, weights, card, wish, tensor, pipeline)
        if tried.room > 0 and tried.cache.needed(context, wish.concurrency) <= tried.room:
            found = tried
            break
    assert tried is not None
    return Plan(shape, card, wish, context, weights, token, request, bare, found, tried)


def layout(shape: Shape, weights: int, card: Card, wish: Wish, tensor: int, pipeline: int) -> Layout:
    """One layout, whether or not it holds the model."""
    return _layout(shape, weights, card, wish, tensor, pipeline)


def divides(shape: Shape, tensor: int) -> bool:
    """Whether vLLM can spread the heads over so many cards: query heads evenly, key heads evenly or as copies."""
    kv_heads = 1 if any(one.latent for one in shape.attention) else shape.kv_heads
    return shape.heads % tensor == 0 and (kv_heads % tensor == 0 or tensor % kv_heads == 0)


def _layouts(shape: Shape, card: Card, wish: Wish) -> Iterator[tuple[int, int]]:
    """Layouts by their number of cards. Tensor parallel stays within a host, pipeline stages are whole hosts."""
    if wish.tensor or wish.pipeline:
        yield wish.tensor or 1, wish.pipeline or 1
        return
    widths = [width for width in range(1, card.per_host + 1) if divides(shape, width)]
    if card.device == "hpu":  # the plugin takes powers of two, on one machine
        widths = [width for width in widths if width in (1, 2, 4, 8)]
    for width in widths:
        yield width, 1
    if card.device == "cuda":
        for hosts in range(2, min(MOST_HOSTS, shape.layers) + 1):
            yield widths[-1], hosts


def _layout(shape: Shape, weights: int, card: Card, wish: Wish, tensor: int, pipeline: int) -> Layout:
    share = ceil(weights / (tensor * pipeline) * _unevenness(shape, pipeline))
    usable = card.memory if card.device == CPU else int(card.memory * wish.utilization)
    if card.device == "hpu":  # the plugin takes the share of what the weights leave
        usable = share + int((card.memory - share) * wish.utilization)
    reserve = _reserve(shape, card, wish, tensor)
    kept = _cache(shape, card, wish, tensor, pipeline)
    return Layout(tensor, pipeline, usable, share, reserve, kept, wish.cache_bytes)


def _unevenness(shape: Shape, pipeline: int) -> float:
    """By how much the stage with the most layers exceeds the average."""
    return ceil(shape.layers / pipeline) / (shape.layers / pipeline)


def _cache(shape: Shape, card: Card, wish: Wish, tensor: int, pipeline: int) -> Cache:
    batches = pipeline + (card.device == "cuda")  # vLLM schedules one step ahead on GPUs
    return cache.of(
        shape,
        device=card.device,
        dtype=wish.cache_dtype,
        block=wish.block,
        tensor=tensor,
        pipeline=pipeline,
        in_flight=batches * _batch(card, wish)[0],
        prefix_caching=wish.prefix_caching,
    )


def _batch(card: Card, wish: Wish) -> tuple[int, int]:
    """Tokens and requests of one step, by vLLM's own defaults for a server on that card."""
    large = card.memory >= 70 * GIB and not card.name.startswith("a100")
    tokens = 16384 if card.memory >= 160 * GIB else 8192 if large else 2048
    requests = 1024 if large else 256
    if card.device != "cuda":
        tokens, requests = 2048, 128
    return wish.batched_tokens or tokens, wish.sequences or requests


def _reserve(shape: Shape, card: Card, wish: Wish, tensor: int) -> int:
    """What a step needs beside weights and cache: its activations, the sampler's logits, graphs, the context."""
    if card.device == CPU:
        return cpu_memory.HEADROOM
    tokens, requests = _batch(card, wish)
    inner = shape.config.get("intermediate_size")
    inner = inner if isinstance(inner, int) else 4 * shape.hidden
    activations = tokens * (4 * shape.hidden + 2 * ceil(inner / tensor)) * shape.dtype_bytes
    logits = 2 * min(requests, tokens) * shape.vocabulary * 4
    return activations + logits + _CONTEXT + (0 if wish.eager else _GRAPHS) + (_COLLECTIVES if tensor > 1 else 0)
