"""Says before anything is loaded what cannot fit, and the settings with which it would.

Only what is sure is refused: weights by their files and the cache of one request, which vLLM itself insists on, against
memory that the device reports. What vLLM needs beside them is an estimate, and left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

from engine import devices, hub, model, names
from engine.decisions import Situation
from engine.fit import GIB, estimate, plan, remote, shape, tensors, wishes
from engine.fit.cards import Card
from engine.fit.plan import Layout, Wish
from engine.fit.shape import Shape, Unreadable
from engine.messages import Exit, Problem, say
from engine.values import FALSE_WORDS

# Settings with which a card holds more, or something else, than what is reckoned here.
_OTHERWISE = ("hf-overrides", "num-gpu-blocks-override", "cpu-offload-gb", "kv-cache-dtype-skip-layers", "quantization")
_DECODERS = ("ForCausalLM", "ForConditionalGeneration")


@dataclass(frozen=True)
class _Case:
    """A model, what is wanted of it, and the memory of one card."""

    shape: Shape
    weights: int
    card: Card
    wish: Wish
    context: int | None  # None: vLLM is to find the longest
    careful: bool = False  # keep back what vLLM needs beside them by estimate, too: for what is advised

    def layout(self, tensor: int | None = None) -> Layout:
        wide = tensor or self.wish.tensor or 1
        return plan.layout(self.shape, self.weights, self.card, self.wish, wide, self.wish.pipeline or 1)

    def left(self, layout: Layout) -> int:
        """Bytes for the cache on one card."""
        left = self.card.memory - layout.weights
        if self.careful and self.card.device != "cpu":  # there it is kept back already
            left -= layout.reserve
        return left if self.wish.cache_bytes is None else min(left, self.wish.cache_bytes)

    def holds(self, layout: Layout) -> bool:
        return self.left(layout) > 0 and (self.context is None or self.needed(layout) <= self.left(layout))

    def needed(self, layout: Layout) -> int:
        return layout.cache.needed(self.context or 1, 1)


def forced(environ: Mapping[str, str]) -> bool:
    """Whether a start is wanted although it cannot fit."""
    return environ.get(names.FORCE, "").strip().lower() not in ("", *FALSE_WORDS)


def heeded(situation: Situation, device: str, environ: Mapping[str, str]) -> list[Problem]:
    """The problems, or none where a start is forced: then they are said, and no more."""
    found = problems(situation, device)
    if not forced(environ):
        return found
    for problem in found:
        say(f"{names.FORCE} is set: starting although {problem.sentence}")
    return []


def problems(situation: Situation, device: str) -> list[Problem]:
    """What cannot fit on this machine; nothing where model or memory are not known well enough to be sure."""
    if situation.model is None or _is_otherwise(situation):
        return []
    room = devices.load(device).room(situation)
    if not room:
        return []
    try:
        case = _case(situation, device, room)
        layout = case.layout() if case else None
    except (Unreadable, tensors.BadHeader, *remote.FAILURES):
        return []
    if case is None or layout is None or case.holds(layout):
        return []
    return [_refusal(case, layout, devices.load(device).visible_devices(situation.environ), device)]


def _is_otherwise(situation: Situation) -> bool:
    values = situation.values
    experts = values.get("enable-expert-parallel") == "true" and situation.number("data-parallel-size") > 1
    pooling = values.get("runner", "auto") not in ("auto", "generate")
    return experts or pooling or bool(situation.environ.get(names.FP8)) or any(name in values for name in _OTHERWISE)


def _case(situation: Situation, device: str, room: int) -> _Case | None:
    assert situation.model is not None
    files = model.find(situation.model, situation.environ, situation.values)
    revision = situation.values.get("revision") or "main"
    if files is not None:
        config = files.whole_config()
    elif "://" in situation.model or model.is_path(situation.model) or hub.is_offline(situation.environ):
        return None
    else:
        config = remote.config(situation.model, situation.environ, revision)
    if not any(str(name).endswith(_DECODERS) for name in config.get("architectures") or []):
        return None
    read = shape.read(config)
    read = shape.computing_in(read, situation.values.get("dtype", "auto"))
    weights = _weights(situation, read, files)
    if not weights:
        return None
    wish = wishes.of(situation.values, situation.environ)
    if wish.cache_bytes is None:
        wish = replace(wish, cache_bytes=_cache_bytes(situation, device))
    context = wish.context if "max-model-len" in situation.values else read.longest
    return _Case(read, weights, Card(device, device, room, room, 8), wish, context)


def _weights(situation: Situation, read: Shape, files: model.ModelFiles | None) -> int:
    """Bytes of the weights, or 0. Of files without headers no more than their size, and than the model comes to."""
    if files is None:
        assert situation.model is not None
        revision = situation.values.get("revision") or "main"
        found = remote.weights(situation.model, situation.environ, read.layers, revision)
        return found.bytes_for(read) if found else 0
    try:
        found = tensors.local(files.folder, read.layers)
    except tensors.BadHeader:
        found = None
    return found.bytes_for(read) if found else min(files.weights() or 0, estimate.weight_bytes(read))


def _cache_bytes(situation: Situation, device: str) -> int | None:
    """Bytes of the cache of one worker where the device settles them."""
    words = [word for decision in devices.load(device).tune(situation) for word in decision.args]
    return wishes.number(dict(pairwise(words)).get("--kv-cache-memory-bytes"))


def _refusal(case: _Case, layout: Layout, visible: int | None, device: str) -> Problem:
    where = "in memory" if device == "cpu" else "on each card" if layout.cards > 1 else "on the card"
    if layout.weights >= case.card.memory:
        sentence = f"the weights take {_gib(layout.weights)} GiB {where}, and {_gib(case.card.memory)} GiB can be used"
    else:
        sentence = (
            f"one request of {case.context} tokens takes {_gib(case.needed(layout))} GiB of KV cache {where}, "
            f"and {_gib(max(0, case.left(layout)))} GiB is left for it"
        )
    ways = [*_ways(case, layout, visible, device), f"{names.FORCE}=true (--force) starts all the same"]
    return Problem(f"this cannot fit: {sentence}", "; or ".join(ways), Exit.MISSING_PREREQUISITE)


def _ways(case: _Case, layout: Layout, visible: int | None, device: str) -> Iterator[str]:
    """Settings that make it fit, each by itself, the ones that cost least first."""
    case = replace(case, careful=True)
    longest = layout.cache.longest(case.left(layout), case.context or 0) // 16 * 16
    if case.context is not None and longest >= 256:
        yield f"set VLLM_MAX_MODEL_LEN={longest}"
    explicit = case.wish.cache_bytes
    if device == "cpu" and explicit is not None and case.context is not None:
        wanted = ceil(case.needed(layout) / GIB)
        if wanted * GIB + layout.weights <= case.card.memory:
            yield f"set VLLM_CPU_KVCACHE_SPACE={wanted}"
    if device != "cpu":
        most = (visible or 1) // (case.wish.pipeline or 1)
        widths = (width for width in range(layout.tensor + 1, most + 1) if plan.divides(case.shape, width))
        if (width := next((width for width in widths if case.holds(case.layout(width))), None)) is not None:
            yield f"set VLLM_TP_SIZE={width}"
    if device == "cuda" and case.wish.cache_dtype == "auto":
        smaller = replace(case, wish=replace(case.wish, cache_dtype="fp8"))
        if smaller.holds(smaller.layout()):
            yield "set VLLM_KV_CACHE_DTYPE=fp8"
    yield "see `scripts/berth plan` for the cards that the model needs"


def _gib(count: int) -> str:
    return f"{count / GIB:.1f}"
