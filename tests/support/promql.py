"""What the dashboards and the alerts ask of Prometheus: their queries, and the names and labels in them."""

import json
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "compose" / "monitoring"
BY_PROMETHEUS = {"up": set[str](), "ALERTS": {"alertname", "alertstate", "severity"}}
"""What Prometheus adds by itself, with the labels."""

# What Grafana puts in before it asks.
_VARIABLES = {"$__rate_interval": "1m", "$instance": ".*"}


@dataclass(frozen=True)
class Query:
    """A query, and where it stands: the dashboard's panel or the alert."""

    text: str
    place: str
    used: dict[str, set[str]] = field(compare=False)
    """Each metric, and the labels that the query expects it to have."""


def queries(folder: Path | None = None) -> list[Query]:
    """Those of a device's folder, or those that every device has."""
    place = folder or MONITORING
    boards = [folder / "dashboard.json"] if folder else sorted((MONITORING / "dashboards").glob("*.json"))
    found = [*_of_rules(place / "rules.yaml")]
    for board in boards:
        found += _of_dashboard(board)
    return found


def device_folders() -> list[Path]:
    """The folders of those devices that have figures of their own."""
    return sorted(path.parent for path in MONITORING.glob("*/panels.yaml"))


def _of_rules(path: Path) -> Iterator[Query]:
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield _query(rule["expr"], f"{path.parent.name}/{path.name}: {rule['alert']}")


def _of_dashboard(path: Path) -> Iterator[Query]:
    for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", []):
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            yield _query(target["expr"], f"{path.parent.name}/{path.name}: {panel['title']}", named)


def _query(text: str, place: str, legend: AbstractSet[str] = frozenset()) -> Query:
    for name, value in _VARIABLES.items():
        text = text.replace(name, value)
    used: dict[str, set[str]] = {}
    _walk(promql_parser.parse(text), set(legend), used)
    return Query(text, place, used)


def _walk(node: Any, wanted: set[str], used: dict[str, set[str]]) -> None:
    """Go down to every selector; `wanted` are the labels by which its values are summed further up."""
    match type(node).__name__:
        case "VectorSelector":
            labels = {matcher.name for matcher in node.matchers.matchers}
            used.setdefault(node.name, set()).update(labels | wanted)
        case "MatrixSelector":
            _walk(node.vector_selector, wanted, used)
        case "AggregateExpr":
            _walk(node.expr, wanted | set(node.modifier.labels if node.modifier else ()), used)
        case "Call":
            for argument in node.args:
                _walk(argument, wanted, used)
        case "BinaryExpr":
            _walk(node.lhs, wanted, used)
            _walk(node.rhs, wanted, used)
        case "ParenExpr" | "UnaryExpr" | "SubqueryExpr":
            _walk(node.expr, wanted, used)
        case "NumberLiteral" | "StringLiteral":
            pass
        case other:
            raise AssertionError(f"a query has a part that this does not know: {other}")
