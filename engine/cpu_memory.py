"""How large the KV cache on a CPU is to be: it lives in the same memory as the weights."""

from dataclasses import dataclass

from engine.fit import cache
from engine.fit.shape import Shape, Unreadable, computing_in
from engine.model import ModelFiles

GIB = 1 << 30
HEADROOM = 2 * GIB  # the interpreters of server, engine and worker, and activations
SMALLEST = GIB // 4  # below this no model of use serves even one request
DEFAULT_SEQUENCES = 128  # vLLM's own --max-num-seqs on CPU, for each worker


@dataclass(frozen=True)
class Memory:
    """What is left, and under which roof."""

    available: int
    limited: bool  # by a control group, so that nobody else wants what is under the limit


def kv_cache(
    memory: Memory, model: ModelFiles | None, tokens: int | None, sequences: int, dtype: str = "auto"
) -> tuple[int, str]:
    """Return bytes for the KV cache and the reason, for a log line. `tokens` is the longest request, if known.

    Weights and 2 GiB stay free; never more than all requests together can use; on a machine without a memory limit
    never more than half of what is free, since others live there too. Where the model's size is not known yet (it is
    still to be downloaded): a quarter of what is free.
    """
    weights = model.weights() if model else None
    if model is None or weights is None:
        return max(SMALLEST, memory.available // 4), "a quarter of the free memory: the model's size is not known yet"
    room = memory.available - weights - HEADROOM
    why = f"{gib(memory.available)} GiB free, less {gib(weights)} for weights and {gib(HEADROOM)} for the rest"
    if not memory.limited and room > memory.available // 2:
        room, why = memory.available // 2, "half of the free memory: no memory limit, so others live here too"
    known = model.shape()
    length = tokens or (known.longest if known else None)
    if known and length and (useful := max(SMALLEST, _useful(known, length, sequences, dtype))) < room:
        room, why = useful, f"all that {sequences} requests of {length} tokens can use"
    return max(SMALLEST, room), why


def _useful(model: Shape, tokens: int, sequences: int, dtype: str) -> int:
    """Bytes that so many requests can use at most."""
    try:
        return cache.of(computing_in(model, dtype), device="cpu").needed(tokens, sequences)
    except Unreadable:
        return 1 << 62


def gib(count: int) -> str:
    """Bytes as GiB with one decimal."""
    return f"{count / GIB:.1f}"
