"""Two results side by side: each figure, their ratio, and which of the two is better."""

import math
from dataclasses import dataclass
from typing import Any

from berth.bench.record import Record
from berth.errors import Exit, failed
from engine.bench import PERCENTILES, SERVE

HEADS = ("figure", "A", "B", "B / A", "", "")
BAR = 12  # characters
SAME = 0.02  # less than that apart is called the same

# vLLM's names: words, unit, and whether more is better.
_FIGURES: dict[str, list[tuple[str, str, str, bool]]] = {
    SERVE: [
        ("request_throughput", "requests", "/s", True),
        ("output_throughput", "output tokens", "/s", True),
        ("total_token_throughput", "tokens, prompts too", "/s", True),
        ("median_ttft_ms", "first token, median", "ms", False),
        ("p99_ttft_ms", "first token, 99 %", "ms", False),
        ("median_itl_ms", "between tokens, median", "ms", False),
        ("p99_itl_ms", "between tokens, 99 %", "ms", False),
        ("median_tpot_ms", "per token, median", "ms", False),
        ("median_e2el_ms", "whole answer, median", "ms", False),
        ("p99_e2el_ms", "whole answer, 99 %", "ms", False),
    ],
    "startup": [
        ("avg_cold_startup_time", "cold start", "s", False),
        ("avg_cold_compilation_time", "of it compiling", "s", False),
        ("avg_warm_startup_time", "warm start", "s", False),
        ("avg_warm_compilation_time", "of it compiling", "s", False),
    ],
}
CURVES = (("ttft", "first token"), ("itl", "between tokens"), ("e2el", "whole answer"))


@dataclass(frozen=True)
class Row:
    """One figure of both. `ratio` is B / A, None where A is nought; `better` names the better one, or nobody."""

    figure: str
    unit: str
    a: float
    b: float
    ratio: float | None
    better: str

    def cells(self, a: str = "A", b: str = "B") -> tuple[str, ...]:
        """For a person, by names for the two; a bar of half its width is a ratio of one."""
        if self.ratio is None:
            return self.figure, _number(self.a, self.unit), _number(self.b, self.unit), "", "", ""
        filled = round(min(2.0, max(0.0, self.ratio)) * BAR / 2)
        bar = "█" * filled + "·" * (BAR - filled) + ("…" if self.ratio > 2 else "")
        words = f"{a if self.better == 'A' else b} is better" if self.better else "the same"
        return (
            self.figure,
            _number(self.a, self.unit),
            _number(self.b, self.unit),
            f"{self.ratio:.2f}",
            bar,
            words,
        )


def figures(record: Record) -> list[tuple[str, float, str, bool]]:
    """What is worth reading in a result: words, value, unit, whether more is better."""
    return [
        (words, value, unit, more)
        for name, words, unit, more in _FIGURES[record.kind]
        if (value := number(record.figures.get(name))) is not None
    ]


def compare(a: Record, b: Record) -> list[Row]:
    """The rows. Raises BerthError (exit code 2) for results of different kinds, or with no figure in common."""
    if a.kind != b.kind:
        raise failed(f"A is of {a.kind} and B of {b.kind}: nothing to compare", "name two alike", Exit.BAD_SETTING)
    rows = []
    for name, words, unit, more in _FIGURES[a.kind]:
        one, other = number(a.figures.get(name)), number(b.figures.get(name))
        if one is not None and other is not None:
            ratio = other / one if one else None
            apart = ratio is not None and abs(ratio - 1) >= SAME
            better = ("B" if (other > one) == more else "A") if apart else ""
            rows.append(Row(words, unit, one, other, ratio, better))
    if not rows:
        raise failed("the two have no figure in common", "were they made by one version of vLLM?", Exit.BAD_SETTING)
    return rows


def differences(a: Record, b: Record) -> list[str]:
    """What else the two differ in, beside what was measured: where it stands, A's, B's."""
    found = []
    for place in ("part", "deployment", "versions", "machine", "load"):
        one, other = _flat(place, getattr(a, place)), _flat(place, getattr(b, place))
        names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        found += [f"{name}: {one.get(name, 'not told')} / {other.get(name, 'not told')}" for name in names]
    return found


def _flat(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {name: str(value)}
    return {inner: text for key, one in value.items() for inner, text in _flat(f"{name} {key}", one).items()}


def curve(record: Record, name: str) -> list[tuple[float, float]]:
    """How a time is spread: pairs of percentile and milliseconds; empty where the result does not tell."""
    told = [(float(percent), number(record.figures.get(f"p{percent}_{name}_ms"))) for percent in PERCENTILES]
    return [(percent, value) for percent, value in told if value is not None]


def number(value: Any) -> float | None:
    """A finite number, or None: results come from files."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return float(value) if usable and math.isfinite(value) else None
    except OverflowError:
        return None


def table(record: Record) -> list[tuple[str, str]]:
    """One result as rows."""
    return [(words, _number(value, unit)) for words, value, unit, _ in figures(record)]


def _number(value: float, unit: str) -> str:
    return f"{value:,.{2 if abs(value) < 100 else 0}f} {unit}" if unit != "/s" else f"{value:,.2f}/s"
