"""OPEA's GET /v1/statistics: how long the latest requests took. /metrics says far more."""

from collections import deque
from collections.abc import Sequence

from llm_service.records.exchange import Exchange

KEPT = 4096
"""How many requests count; OPEA's services keep every one for ever."""
_SERVICE = "opea_service@llm"
_COUNTED = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"))


class Statistics:
    """Latencies in seconds, of answers that were complete: to their end, and of streams to their first byte."""

    def __init__(self) -> None:
        self._whole: deque[float] = deque(maxlen=KEPT)
        self._first: deque[float] = deque(maxlen=KEPT)

    def finished(self, exchange: Exchange) -> None:
        """Take note of a request that has ended."""
        ended = exchange.last_byte_at
        if exchange.outcome != "ok" or exchange.route not in _COUNTED or ended is None:
            return
        self._whole.append(ended - exchange.started_at)
        if exchange.stream and exchange.first_byte_at is not None:
            self._first.append(exchange.first_byte_at - exchange.started_at)

    def report(self) -> dict[str, dict[str, float | None]]:
        """Return OPEA's object: median, 99th percentile and average, all None while there is nothing to tell."""
        return {_SERVICE: {**_figures(self._whole, "latency"), **_figures(self._first, "latency_first_token")}}


def _figures(values: Sequence[float], name: str) -> dict[str, float | None]:
    if not values:
        return {f"p50_{name}": None, f"p99_{name}": None, f"average_{name}": None}
    ordered = sorted(values)
    return {
        f"p50_{name}": _percentile(ordered, 0.5),
        f"p99_{name}": _percentile(ordered, 0.99),
        f"average_{name}": sum(ordered) / len(ordered),
    }


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Between two values in proportion, as numpy does, which OPEA uses."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
