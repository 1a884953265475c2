"""Two results side by side, as a table and as a picture."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.bench import compare, plot, record
from berth.bench.record import Record
from berth.errors import BerthError
from engine.bench import PERCENTILES


def result(factor: float = 1.0, **more: Any) -> Record:
    """A result as vLLM 0.32 gives it, every time multiplied."""
    times = {f"p{percent}_{name}_ms": percent * factor for name, _ in compare.CURVES for percent in PERCENTILES}
    figures = {"request_throughput": 10 / factor, "median_ttft_ms": 50 * factor, "completed": 200, **times}
    about = {"deployment": {"runtime": "compose", "model": "demo", "device": "cpu"}, "load": {"concurrency": 8}}
    facts = {"kind": "serve", "part": "service", "made": "2026-11-21T10:00:00Z", "machine": {}, "versions": {}}
    return Record(**{**facts, **about, "figures": figures, **more})


def test_more_is_better_for_rates_and_less_for_times() -> None:
    rows = {row.figure: row for row in compare.compare(result(), result(2.0))}
    assert (rows["requests"].ratio, rows["requests"].better) == (0.5, "A")
    assert (rows["first token, median"].ratio, rows["first token, median"].better) == (2.0, "A")
    rows = {row.figure: row for row in compare.compare(result(), result(0.5))}
    assert {row.better for row in rows.values()} == {"B"}


def test_less_than_two_percent_apart_is_the_same() -> None:
    assert {row.better for row in compare.compare(result(), result(1.01))} == {""}
    assert compare.compare(result(), result(1.01))[0].cells()[-1] == "the same"


def test_what_else_differs_is_told() -> None:
    other = result(load={"concurrency": 16}, part="engine")
    assert compare.differences(result(), other) == ["part: service / engine", "load concurrency: 8 / 16"]
    assert compare.differences(result(), result(3.0)) == []


def test_results_of_two_kinds_are_not_compared() -> None:
    start = result(kind="startup", figures={"avg_cold_startup_time": 3.0})
    with pytest.raises(BerthError, match="A is of serve and B of startup"):
        compare.compare(result(), start)
    with pytest.raises(BerthError, match="no figure in common"):
        compare.compare(result(), result(figures={"completed": 1}))


def test_the_picture_has_a_curve_of_each_for_every_time() -> None:
    drawn = ET.fromstring(plot.draw(result(), result(2.0)))
    assert len(drawn.findall(".//{*}polyline")) == 2 * len(compare.CURVES)


def test_starts_are_drawn_as_bars_and_names_are_escaped() -> None:
    told = {"avg_cold_startup_time": 30.0, "avg_warm_startup_time": 0.0}
    about = {"model": "<b>&", "runtime": "native"}
    one = result(kind="startup", figures=told, deployment=about)
    drawn = ET.fromstring(plot.draw(one, result(kind="startup", figures={**told, "avg_warm_startup_time": 5.0})))
    assert len(drawn.findall(".//{*}g/{*}rect")) == 4
    assert "<b>& native" in " ".join(drawn.itertext())


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert record.read(result().write(tmp_path / "deep" / "a.json")) == result()


UNNUMBERED = json.dumps({name: value for name, value in result().facts().items() if name != "schema"})


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 1}', '{"schema": 2, "kind": "serve"}', UNNUMBERED, "\x00\xff"]
)
def test_a_file_that_is_no_result_is_refused_in_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(BerthError, match="is no result of `berth bench`") as refused:
        record.read(tmp_path / "a.json")
    assert refused.value.exit_code == 2


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=6,
)
NAMES = st.sampled_from(["request_throughput", "median_ttft_ms", "p50_ttft_ms", "p99_itl_ms", "other"])


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(NAMES, ANYTHING, max_size=4), st.dictionaries(st.text(max_size=3), ANYTHING, max_size=2))
def test_any_figures_are_compared_and_drawn_or_refused(figures: dict[str, Any], about: dict[str, Any]) -> None:
    one = record.Record(**{**result().__dict__, "figures": figures, "load": about})
    for a, b in ((one, result()), (result(), one), (one, one)):
        try:
            rows = compare.compare(a, b)
        except BerthError:
            continue
        assert all(len(row.cells()) == len(compare.HEADS) for row in rows)
        ET.fromstring(plot.draw(a, b))
        compare.differences(a, b)


@settings(deadline=None, max_examples=50)
@given(ANYTHING)
def test_any_json_is_a_result_or_is_refused(said: Any) -> None:
    file = Path(__file__).with_name("never-written.json")
    text = json.dumps(said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *_, **__: text)
        with pytest.raises(BerthError):
            record.read(file)
