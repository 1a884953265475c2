"""Reads the histogram of the time to first token, vLLM's or the service's: the median of the last minute's requests."""

import math
import re
from collections import deque
from collections.abc import Mapping

WINDOW_S = 60.0

# Cumulative counts, as Prometheus has them: a bucket's upper bound in seconds, and how many were not above it.
Buckets = Mapping[float, float]

_BUCKET = re.compile(
    r'^(?:vllm[:_]|berth_)?time_to_first_token_seconds_bucket\{(?:.*,)?le="([^"]+)".*\} +(\S+)(?: +\S+)?$'
)


def buckets(text: str) -> dict[float, float]:
    """The buckets in /metrics, each summed over its other labels: engines, and models."""
    found: dict[float, float] = {}
    for line in text.splitlines():
        if match := _BUCKET.match(line):
            bound, count = _number(match[1]), _number(match[2])
            if bound is not None and count is not None and math.isfinite(count):
                found[bound] = found.get(bound, 0.0) + count
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def median(counted: Buckets) -> float | None:
    """The median in seconds, by a straight line inside its bucket as Prometheus's histogram_quantile has it.

    None where nothing was counted. What lies above the last bound is told as that bound.
    """
    bounds = sorted(counted)
    if not bounds or counted[bounds[-1]] <= 0:
        return None
    wanted = counted[bounds[-1]] / 2
    below, passed = 0.0, 0.0
    for bound in bounds:
        if counted[bound] >= wanted:
            if math.isinf(bound):
                return below or None
            inside = counted[bound] - passed
            return below + (bound - below) * ((wanted - passed) / inside if inside > 0 else 1.0)
        below, passed = bound, counted[bound]
    return None


class Recent:
    """The median over the last minute, of an engine that may be started anew and count from zero again."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Buckets]] = deque()

    def update(self, counted: Buckets, now: float) -> float | None:
        """In seconds, after an engine that counted this at `now`; None where no request got a first token meanwhile."""
        if not counted:  # it does not answer, or has none
            return None
        if self._seen and any(counted.get(bound, 0.0) < before for bound, before in self._seen[-1][1].items()):
            self._seen.clear()
            self._seen.append((now, {}))  # all that a fresh engine counted is recent
        self._seen.append((now, counted))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        before = self._seen[0][1]
        return median({bound: count - before.get(bound, 0.0) for bound, count in counted.items()})
