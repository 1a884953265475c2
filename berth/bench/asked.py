"""What a benchmark is asked to do: the load, or how many starts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from berth.errors import Exit, failed
from engine.names import SECRET_FLAGS

# What Berth says itself: where the server is, and where the figures go.
_OURS = ("base-url", "host", "port", "save-result", "result-dir", "result-filename", "metric-percentiles")
_SECRET = ("header", *SECRET_FLAGS)


@dataclass(frozen=True)
class Load:
    """Requests of random words. Lengths are in tokens, `rate` in requests a second (None: as `concurrency` lets them).

    `more` are flags of `vllm bench serve`, which come last and win.
    """

    requests: int = 200
    input_tokens: int = 128
    output_tokens: int = 64
    concurrency: int = 8
    rate: float | None = None
    seed: int = 0
    more: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """What is kept beside a result, and what the order says."""
        return asdict(self)


@dataclass(frozen=True)
class Starts:
    """How often the engine is started with fresh caches, and with warm ones."""

    cold: int = 1
    warm: int = 3

    def facts(self) -> dict[str, Any]:
        """What is kept beside a result, and what the order says."""
        return asdict(self)


def check_more(words: Sequence[str]) -> tuple[str, ...]:
    """The words, if they are flags that a user may give. Raises BerthError (exit code 2)."""
    if words and not words[0].startswith("--"):
        hint = "flags of `vllm bench serve` come after --, as in: scripts/berth bench serve -- --dataset-name sharegpt"
        raise failed(f"{words[0]}: not an option of `berth bench serve`", hint, Exit.BAD_SETTING)
    for word in words:
        name = word.partition("=")[0].removeprefix("--").replace("_", "-")
        if not word.startswith("--"):
            continue
        if name in _SECRET:
            raise failed(f"--{name} would show its secret in the process list", "use --key-file", Exit.BAD_SETTING)
        if name in _OURS:
            raise failed(f"--{name} is Berth's to say", "leave it out; --output names the result", Exit.BAD_SETTING)
    return tuple(words)
