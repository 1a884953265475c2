"""Prometheus' text format, version 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Labels = tuple[str, ...]


class Buckets(Protocol):
    """What a histogram is made of: the number of values below each bound, and their sum."""

    sum: float

    def cumulated(self) -> list[tuple[str, int]]:
        """Return each upper bound and how many values lie below it; the last bound is +Inf."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of samples: its name, kind and meaning, and lines of what to append to the name, labels and value."""

    name: str
    kind: str
    meaning: str
    samples: tuple[tuple[str, str, float], ...]

    @classmethod
    def counter(cls, name: str, meaning: str, labels: Sequence[str], values: Mapping[_Labels, float]) -> "Metric":
        """Return a counter; its name gets the usual ending."""
        return cls(f"{name}_total", "counter", meaning, tuple(_plain(labels, values)))

    @classmethod
    def gauge(cls, name: str, meaning: str, labels: Sequence[str], values: Mapping[_Labels, float]) -> "Metric":
        """Return a gauge."""
        return cls(name, "gauge", meaning, tuple(_plain(labels, values)))

    @classmethod
    def histogram(cls, name: str, meaning: str, labels: Sequence[str], values: Mapping[_Labels, Buckets]) -> "Metric":
        """Return a histogram."""
        return cls(name, "histogram", meaning, tuple(_buckets(labels, values)))


def page(metrics: Iterable[Metric]) -> bytes:
    """Return all of them as one page."""
    return "".join(line for metric in metrics for line in _lines(metric)).encode()


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.meaning}\n# TYPE {metric.name} {metric.kind}\n"
    for ending, labels, value in metric.samples:
        # Whole numbers without a point: a counter of tokens stays exact.
        yield f"{metric.name}{ending}{labels} {value!r}\n"


def _plain(labels: Sequence[str], values: Mapping[_Labels, float]) -> Iterator[tuple[str, str, float]]:
    for named, value in values.items():
        yield "", _braces(zip(labels, named, strict=True)), value


def _buckets(labels: Sequence[str], values: Mapping[_Labels, Buckets]) -> Iterator[tuple[str, str, float]]:
    for named, buckets in values.items():
        own = list(zip(labels, named, strict=True))
        cumulated = buckets.cumulated()
        for bound, count in cumulated:
            yield "_bucket", _braces([*own, ("le", bound)]), count
        yield "_sum", _braces(own), buckets.sum
        yield "_count", _braces(own), cumulated[-1][1]


def _braces(pairs: Iterable[tuple[str, str]]) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
