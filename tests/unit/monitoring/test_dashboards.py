"""The dashboards and the alerts as files: made of their sources, in Grafana's form, and complete."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from compose import write_monitoring
from tests.support.promql import BY_PROMETHEUS, MONITORING, ROOT, device_folders, queries

DASHBOARDS = sorted(MONITORING.rglob("*.json"))
RULES = sorted(MONITORING.rglob("rules.yaml"))


def lost(given: Any, read: Any, place: str = "") -> list[str]:
    """What Grafana's own types did not take over from a dashboard."""
    if isinstance(given, dict):
        gone = [f"{place}/{name}" for name in given if name not in read]
        kept = [name for name in given if name in read]
        return [*gone, *(line for name in kept for line in lost(given[name], read[name], f"{place}/{name}"))]
    if isinstance(given, list):
        assert len(given) == len(read), place
        return [line for number, value in enumerate(given) for line in lost(value, read[number], f"{place}[{number}]")]
    return [] if given == read else [f"{place}: {given!r} became {read!r}"]


def rules(path: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("path", sorted(write_monitoring.files()), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_files_are_those_that_their_sources_make(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == write_monitoring.files()[path], "python -m compose.write_monitoring"


def test_no_dashboard_is_left_without_its_source() -> None:
    assert set(DASHBOARDS) == set(write_monitoring.dashboards())


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_grafanas_own_types_take_over_all_of_a_dashboard(path: Path) -> None:
    plugins.register_default_plugins()
    given = json.loads(path.read_text(encoding="utf-8"))
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))
    assert lost(given, read) == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_panels_lie_beside_each_other_and_none_is_empty(path: Path) -> None:
    board = json.loads(path.read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(0 <= x < 24 for x, _ in cells), panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["targets"], panel["title"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_every_dashboard_has_a_name_of_its_own() -> None:
    boards = [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len({board["title"] for board in boards}) == len(boards)


@pytest.mark.parametrize("folder", device_folders(), ids=lambda folder: folder.name)
def test_a_devices_queries_name_what_its_exporter_is_documented_to_show(folder: Path) -> None:
    """No such card is here, so the list with its source stands for the scrape."""
    first, *names = (folder / "metrics.txt").read_text(encoding="utf-8").splitlines()
    assert first.startswith("# Shown by ")
    asked = {name: query.place for query in queries(folder) for name in query.used}
    assert {name: place for name, place in asked.items() if name not in {*names, *BY_PROMETHEUS}} == {}


@pytest.mark.parametrize("path", RULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_alert_says_how_bad_it_is_what_is_wrong_and_what_helps(path: Path) -> None:
    for rule in rules(path):
        assert rule["alert"].startswith("Berth"), rule
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert {"summary", "description"} == rule["annotations"].keys(), rule["alert"]
        assert all(text.endswith(".") for text in rule["annotations"].values()), rule["alert"]


def test_the_page_names_every_alert() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    alerts = {rule["alert"] for path in RULES for rule in rules(path)}
    assert {alert for alert in alerts if f"`{alert}`" not in page} == set()


def test_the_alerts_for_kubernetes_are_the_same() -> None:
    path = ROOT / "kubernetes" / "components" / "monitoring" / "rules.yaml"
    operators = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["groups"]
    ours = yaml.safe_load((MONITORING / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    assert operators == [group for group in ours if group["name"] != "berth-machine"]
