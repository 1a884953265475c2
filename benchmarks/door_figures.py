"""From single measurements to medians, ratios and verdicts; nothing here measures."""

import statistics
from dataclasses import dataclass
from typing import Any

Raw = dict[str, dict[str, list[dict[str, Any]]]]  # contestant, point, one dict per round


@dataclass(frozen=True)
class Point:
    """What is asked, and by how many at once."""

    mode: str
    streams: int

    @property
    def name(self) -> str:
        """How the point is called in tables and in JSON."""
        return f"{self.mode} {self.streams}"


@dataclass(frozen=True)
class Goal:
    """A bound that a figure has to keep."""

    what: str
    value: float | None
    bound: float
    at_least: bool = True

    @property
    def kept(self) -> bool:
        """Whether it does; one that was not measured does not."""
        return self.value is not None and (self.value >= self.bound if self.at_least else self.value <= self.bound)

    def line(self) -> str:
        """One line of the report."""
        shown = "not measured" if self.value is None else f"{self.value:.3g}"
        word = "at least" if self.at_least else "at most"
        return f"{'kept  ' if self.kept else 'MISSED'}  {self.what}: {shown} ({word} {self.bound:g})"


def figures(raw: Raw) -> dict[str, dict[str, dict[str, float]]]:
    """Medians over the rounds, by contestant and point.

    per_s and chunks_per_s are counts a second; added_* are ms more than the engine alone took in the same round, for
    the latency, the first event and each event's way; cpu_us is processor time per reply, or per event of a stream.
    """
    return {
        name: {point: _medians(rounds, raw["direct"][point]) for point, rounds in points.items()}
        for name, points in raw.items()
    }


def _medians(rounds: list[dict[str, Any]], direct: list[dict[str, Any]]) -> dict[str, float]:
    columns: dict[str, list[float]] = {}
    for one, beside in zip(rounds, direct, strict=True):
        for key, value in _row(one, beside).items():
            columns.setdefault(key, []).append(value)
    return {key: statistics.median(values) for key, values in columns.items()}


def _row(one: dict[str, Any], direct: dict[str, Any]) -> dict[str, float]:
    row = {
        "per_s": one["requests"] / one["seconds"],
        "chunks_per_s": one["chunks"] / one["seconds"],
        "faults": float(sum(one[fault] for fault in ("errors", "short", "stuck"))),
    }
    for quantity in ("latency", "first", "transit"):
        ours, least = one[f"{quantity}_us"], direct[f"{quantity}_us"]
        if ours and least:
            row[f"added_{quantity}_p50_ms"] = (ours[0] - least[0]) / 1000
            row[f"added_{quantity}_p99_ms"] = (ours[1] - least[1]) / 1000
    work = one["all_chunks"] or one["all_requests"]
    if "cpu_s" in one and work:
        row["cpu_us"] = one["cpu_s"] / work * 1e6
        row["peak_mib"] = one["peak_mib"]
    return row


def ratios(found: dict[str, dict[str, dict[str, float]]], ours: str = "ours") -> dict[str, dict[str, float]]:
    """How many times each other contestant's rate ours is, by contestant and point."""
    result: dict[str, dict[str, float]] = {}
    for name, points in found.items():
        for point, row in points.items():
            key = "per_s" if point.startswith("json") else "chunks_per_s"
            if name != ours and row[key] and point in found.get(ours, {}):
                result.setdefault(name, {})[point] = found[ours][point][key] / row[key]
    return result


def goals(found: dict[str, dict[str, dict[str, float]]]) -> list[Goal]:
    """What the service has to reach, as far as it was measured."""
    by = ratios(found)
    ours = found.get("ours", {})

    def ratio(name: str, point: str) -> float | None:
        return by.get(name, {}).get(point)

    def own(point: str, key: str) -> float | None:
        return ours.get(point, {}).get(key)

    return [
        Goal("replies a second at 16, times LiteLLM's", ratio("litellm", "json 16"), 60),
        Goal("replies a second at 16, times the OPEA-style service's", ratio("opea-style", "json 16"), 15),
        Goal("added p50 of a reply at 1, ms", own("json 1", "added_latency_p50_ms"), 0.3, False),
        Goal("events a second at 16, times nginx's", ratio("nginx", "flood 16"), 0.95),
        Goal("events a second at 128, times nginx's", ratio("nginx", "flood 128"), 0.95),
        Goal(
            "512 streams of 50 a second: added p50 of an event, ms", own("paced 512", "added_transit_p50_ms"), 3, False
        ),
        Goal("512 streams of 50 a second: times the engine's rate", ratio("direct", "paced 512"), 0.95),
        Goal("highest memory at 512 streams, MiB", own("paced 512", "peak_mib"), 70, False),
        Goal(
            "replies lost, cut short or stuck", sum(row["faults"] for row in ours.values()) if ours else None, 0, False
        ),
    ]


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """One block a point, one line a contestant."""
    lines = []
    by = ratios(found)
    for point in next(iter(found.values())):
        whole = point.startswith("json")
        lines.append(
            f"\n{point + (' replies' if whole else ' streams'):24}{'a second':>10}{'ours is':>9}"
            f"{'added p50':>11}{'p99 ms':>9}{'first p50':>11}{'CPU us':>8}{'MiB':>6}{'faults':>8}"
        )
        for name, points in found.items():
            if point in points:
                lines.append(_line(name, points[point], whole, by.get(name, {}).get(point)))
    return "\n".join(lines)


def _line(name: str, row: dict[str, float], whole: bool, ratio: float | None) -> str:
    way = "latency" if whole else "transit"

    def cell(key: str, width: int, form: str) -> str:
        return f"{row[key]:{width}{form}}" if key in row and name != "direct" else " " * width

    rate = row["per_s" if whole else "chunks_per_s"]
    times = f"{ratio:8.3g}x" if ratio is not None else " " * 9
    cells = cell(f"added_{way}_p50_ms", 11, ".3f") + cell(f"added_{way}_p99_ms", 9, ".2f")
    cells += cell("added_first_p50_ms", 11, ".2f") + cell("cpu_us", 8, ".1f") + cell("peak_mib", 6, ".0f")
    return f"  {name:22}{rate:10,.0f}{times}{cells}{row['faults']:8.0f}"
