"""One deployment, or one job of it, as it is now: what `berth top` shows and `--json` prints."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from berth.slurm.durations import words

HEADS = ("where", "name", "model", "state", "in flight", "queue", "tokens/s", "first token", "KV cache", "time left")


@dataclass(frozen=True)
class Sample:
    """Numbers are None where nobody tells them. `fraction` is how far a phase is, from 0 to 1.

    `tokens_per_s` counts what the engine wrote in the last ten seconds; `time_to_first_token_s` is the median of the
    requests of the last minute; `kv_cache_use` goes from 0 to 1.
    """

    runtime: str
    name: str
    model: str
    device: str
    state: str
    phase: str = ""
    fraction: float | None = None
    detail: str = ""
    in_flight: int | None = None
    queue: int | None = None
    tokens_per_s: float | None = None
    time_to_first_token_s: float | None = None
    kv_cache_use: float | None = None
    time_left_s: int | None = None
    endpoint: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What tells two samples of the same deployment from those of another."""
        return self.runtime, self.name

    def facts(self) -> dict[str, Any]:
        """What a program is told."""
        return asdict(self)

    def cells(self) -> tuple[str, ...]:
        """What a person is told, column by column."""
        percent = f" {self.fraction:.0%}" if self.fraction is not None else ""
        doing = f"{self.phase}{percent}" if self.phase and self.phase != self.state else self.state
        return (
            self.runtime,
            self.name,
            self.model,
            doing,
            "" if self.in_flight is None else str(self.in_flight),
            "" if self.queue is None else str(self.queue),
            "" if self.tokens_per_s is None else f"{self.tokens_per_s:.1f}",
            seconds(self.time_to_first_token_s),
            "" if self.kv_cache_use is None else f"{self.kv_cache_use:.0%}",
            "" if self.time_left_s is None else words(self.time_left_s),
        )


def seconds(value: float | None) -> str:
    """A short time for a person: milliseconds below one second."""
    if value is None:
        return ""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def load(told: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a sample out of what `engine.prometheus.Load` tells; those that are missing are None."""
    return {
        "in_flight": told.get("requests_running"),
        "queue": told.get("requests_waiting"),
        "tokens_per_s": told.get("generation_tokens_per_s"),
        "time_to_first_token_s": told.get("time_to_first_token_s"),
        "kv_cache_use": told.get("kv_cache_use"),
    }
