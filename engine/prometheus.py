"""Reads the few figures of vLLM's /metrics that say what it does and what it has done."""

import math
import re
from collections import deque
from collections.abc import Mapping

from engine import first_token

WINDOW_S = 10.0  # tokens per second are those of the last ten seconds

# What is looked for, whatever comes before it (`vllm:`, `vllm_`) and with or without `_total`.
_WANTED = {
    "prompt_tokens": "prompt_tokens",
    "generation_tokens": "generation_tokens",
    "num_requests_running": "requests_running",
    "num_requests_waiting": "requests_waiting",
}
_KV_USE = ("kv_cache_usage_perc", "gpu_cache_usage_perc")  # a fraction, whatever its name says; the second is older
_SAMPLE = re.compile(r"^(?:vllm[:_])?([a-z_]+?)(?:_total)?(?:\{.*\})? +(\S+)(?: +\S+)?$")


def counts(text: str) -> dict[str, int]:
    """The figures that are there, each summed over its labels: engines, and models."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match and (name := _WANTED.get(match[1])):
            found[name] = found.get(name, 0.0) + _number(match[2])
    return {name: int(value) for name, value in found.items()}


def kv_cache_use(text: str) -> float | None:
    """How much of the KV cache is taken, from 0 to 1: of several engines the fullest one's; None where none tells."""
    samples = [match for line in text.splitlines() if (match := _SAMPLE.match(line))]
    told = [_number(match[2]) for match in samples if match[1] in _KV_USE]
    return round(max(told), 4) if told else None


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


class Usage:
    """Tokens over the life of an engine that may be started anew and count from zero again, and their rate.

    `before` is what was told by an earlier process: that of a job that has been requeued since.
    """

    def __init__(self, before: Mapping[str, object] | None = None) -> None:
        told = {name: (before or {}).get(name) for name in ("prompt_tokens", "generation_tokens")}
        self._total = {name: count if isinstance(count, int) else 0 for name, count in told.items()}
        self._last = dict.fromkeys(self._total, 0)
        self._recent: deque[tuple[float, int]] = deque()

    def update(self, counted: Mapping[str, int], now: float) -> dict[str, float]:
        """What is to be told, after an engine that counted this (nothing: it did not answer) at `now` seconds."""
        for name, last in self._last.items():
            if name in counted:
                self._total[name] += counted[name] - last if counted[name] >= last else counted[name]
                self._last[name] = counted[name]
        return {
            **self._total,
            "generation_tokens_per_s": self._rate(now),
            "requests_running": counted.get("requests_running", 0),
            "requests_waiting": counted.get("requests_waiting", 0),
        }

    def _rate(self, now: float) -> float:
        self._recent.append((now, self._total["generation_tokens"]))
        while len(self._recent) > 2 and now - self._recent[1][0] >= WINDOW_S:
            self._recent.popleft()
        (began, before), (_, after) = self._recent[0], self._recent[-1]
        return round((after - before) / (now - began), 1) if now > began else 0.0


class Load:
    """All that one engine's /metrics tells of its load, look after look."""

    def __init__(self, before: Mapping[str, object] | None = None) -> None:
        self._usage, self._first_tokens = Usage(before), first_token.Recent()

    def update(self, text: str, now: float) -> dict[str, float | None]:
        """What is to be told, after an engine that showed this text (nothing: it did not answer) at `now` seconds."""
        median = self._first_tokens.update(first_token.buckets(text), now)
        return {
            **self._usage.update(counts(text), now),
            "kv_cache_use": kv_cache_use(text),
            "time_to_first_token_s": round(median, 4) if median is not None else None,
        }
