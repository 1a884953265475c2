"""Writes Grafana's dashboards and the alerts for Kubernetes. Run: python -m compose.write_monitoring

A dashboard is made of a short list of panels (compose/monitoring/panels/, and one for each device that has its own),
since Grafana's own files hold fifty lines for each of them. The alerts for Kubernetes are compose/monitoring/rules.yaml
in the form that the Prometheus operator reads.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent / "monitoring"
KUBERNETES = HERE.parents[1] / "kubernetes" / "components" / "monitoring"
SCHEMA = 39
"""Version of Grafana's dashboard files; newer releases read older ones."""

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTHS = {"stat": 4, "timeseries": 8}
_HEIGHTS = {"stat": 4, "timeseries": 8}
_QUANTILES = (0.5, 0.95, 0.99)


def dashboards() -> dict[Path, str]:
    """Every dashboard's file, and its text."""
    common = {HERE / "dashboards" / f"{path.stem}.json": path for path in (HERE / "panels").glob("*.yaml")}
    devices = {path.with_name("dashboard.json"): path for path in HERE.glob("*/panels.yaml")}
    return {
        target: _text(dashboard(yaml.safe_load(source.read_text(encoding="utf-8"))))
        for target, source in {**common, **devices}.items()
    }


def _text(board: dict[str, Any]) -> str:
    """The dashboard as JSON with one line for each panel, so that a change of one shows as one line."""
    panels = ",\n  ".join(json.dumps(panel) for panel in board["panels"])
    return json.dumps({**board, "panels": []}, indent=1).replace('"panels": []', f'"panels": [\n  {panels}\n ]') + "\n"


def dashboard(said: dict[str, Any]) -> dict[str, Any]:
    """One dashboard: rows of panels, and a choice of the instances that are shown."""
    instances = f'label_values(up{{job="{said["job"]}"}}, instance)'
    return {
        "uid": said["uid"],
        "title": said["title"],
        "tags": ["berth"],
        "schemaVersion": SCHEMA,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "title": "Berth", "tags": ["berth"], "asDropdown": False, "keepTime": True}],
        "templating": {
            "list": [
                {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus"},
                {
                    "type": "query",
                    "name": "instance",
                    "label": "Instance",
                    "datasource": _SOURCE,
                    "query": {"query": instances, "refId": "instance"},
                    "refresh": 2,
                    "includeAll": True,
                    "multi": True,
                    "allValue": ".*",
                    "current": {"text": ["All"], "value": ["$__all"]},
                },
            ]
        },
        "panels": list(_numbered(_panels(said))),
    }


def _panels(said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows and panels from top to bottom, each row's panels from left to right."""
    top = 0
    for row in said["rows"]:
        yield {"type": "row", "title": row["title"], "collapsed": False, "gridPos": _place(0, top, 24, 1), "panels": []}
        top, left, lowest = top + 1, 0, 0
        for wanted in row["panels"]:
            kind = wanted.get("kind", "timeseries")
            if left + _WIDTHS[kind] > 24:
                top, left, lowest = top + lowest, 0, 0
            place = _place(left, top, _WIDTHS[kind], _HEIGHTS[kind])
            yield {**_panel(wanted, kind, said["job"]), "gridPos": place}
            left, lowest = left + _WIDTHS[kind], max(lowest, _HEIGHTS[kind])
        top += lowest


def _panel(wanted: dict[str, Any], kind: str, job: str) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": wanted.get("unit", "short"), "min": 0}
    if "max" in wanted:
        defaults["max"] = wanted["max"]
    if kind == "stat":
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        if "alarm" in wanted:
            steps.append({"color": "red", "value": wanted["alarm"]})
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        options: dict[str, Any] = {
            "reduceOptions": reduce,
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "name" if "text" in wanted else "auto",
        }
    else:
        stacked = {"mode": "normal" if wanted.get("stack") else "none", "group": "A"}
        defaults["custom"] = {
            "fillOpacity": 20 if wanted.get("stack") else 0,
            "showPoints": "never",
            "stacking": stacked,
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "type": kind,
        "title": wanted["title"],
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": "ABCDEFGH"[number],
                "datasource": _SOURCE,
                "expr": query["expr"].replace("{@", f'{{job="{job}", instance=~"$instance"'),
                "legendFormat": query.get("legend", "__auto"),
            }
            for number, query in enumerate(_queries(wanted))
        ],
    }


def _queries(wanted: dict[str, Any]) -> list[dict[str, str]]:
    """The panel's queries; `quantiles` stands for those of a histogram, by one label if `by` names it."""
    if "queries" in wanted:
        queries: list[dict[str, str]] = wanted["queries"]
        return queries
    by = [wanted["by"]] if "by" in wanted else []
    summed = f"sum by ({', '.join([*by, 'le'])}) (rate({wanted['quantiles']}_bucket{{@}}[$__rate_interval]))"
    return [
        {
            "expr": f"histogram_quantile({quantile}, {summed})",
            "legend": ", ".join([f"{quantile * 100:g} %", *(f"{{{{{label}}}}}" for label in by)]),
        }
        for quantile in _QUANTILES
    ]


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _numbered(panels: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, panel in enumerate(panels, start=1):
        yield {"id": number, **panel}


def kubernetes_rules() -> str:
    """The alerts as the Prometheus operator reads them. No exporter of the machine is ours there."""
    said = yaml.safe_load((HERE / "rules.yaml").read_text(encoding="utf-8"))
    groups = [group for group in said["groups"] if group["name"] != "berth-machine"]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "berth"},
        "spec": {"groups": groups},
    }
    head = "# Written by `python -m compose.write_monitoring` from compose/monitoring/rules.yaml: change it there.\n"
    return head + yaml.safe_dump(rule, sort_keys=False, allow_unicode=True, width=120)


def files() -> dict[Path, str]:
    """Every file that is written here, and its text."""
    return {**dashboards(), KUBERNETES / "rules.yaml": kubernetes_rules()}


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stderr.write(f"{path.relative_to(HERE.parents[1])}\n")
