"""OPEA's statistics: right, of complete answers only, and never growing."""

import statistics as figures
from collections.abc import Callable

import pytest

from llm_service.records.exchange import Exchange
from llm_service.records.statistics import KEPT, Statistics
from tests.support.waiting import wait_until
from tests.unit.service.door import OPENAI_BODY, Door

CHAT = "/v1/chat/completions"
SERVICE = "opea_service@llm"
NOTHING = {
    f"{figure}_{what}": None for what in ("latency", "latency_first_token") for figure in ("p50", "p99", "average")
}


def ended(seconds: float, first: float | None = None, route: str = CHAT, outcome: str = "ok") -> Exchange:
    return Exchange(
        *("id", "POST", route, route),
        started_at=10.0,
        stream=first is not None,
        outcome=outcome,
        first_byte_at=10.0 + (seconds if first is None else first),
        last_byte_at=10.0 + seconds,
    )


def test_without_an_answer_every_figure_is_null() -> None:
    assert Statistics().report() == {SERVICE: NOTHING}


def test_median_percentile_and_average_are_numpys() -> None:
    kept = Statistics()
    for seconds in (3.0, 1.0, 2.0, 10.0):
        kept.finished(ended(seconds))
    report = kept.report()[SERVICE]
    # numpy.percentile([1, 2, 3, 10], (50, 99)) is 2.5 and 9.79
    assert [report[f"{name}_latency"] for name in ("p50", "p99", "average")] == pytest.approx([2.5, 9.79, 4.0])
    assert report["p50_latency_first_token"] is None


def test_streams_count_to_their_end_and_to_their_first_byte() -> None:
    kept = Statistics()
    kept.finished(ended(4.0, first=0.5))
    report = kept.report()[SERVICE]
    assert (report["p99_latency"], report["average_latency_first_token"]) == pytest.approx((4.0, 0.5))


@pytest.mark.parametrize("other", [{"outcome": "client gone"}, {"outcome": "EngineError"}, {"route": "/ready"}])
def test_what_is_no_complete_answer_does_not_count(other: dict[str, str]) -> None:
    kept = Statistics()
    kept.finished(ended(1.0, **other))
    assert kept.report() == {SERVICE: NOTHING}


def test_only_the_latest_answers_are_kept() -> None:
    kept = Statistics()
    for number in range(2 * KEPT):
        kept.finished(ended(float(number)))
    report = kept.report()[SERVICE]
    assert report["average_latency"] == pytest.approx(figures.fmean(range(KEPT, 2 * KEPT)))


def test_the_service_tells_them(open_door: Callable[..., Door]) -> None:
    door = open_door()
    assert door.client.get("/v1/statistics").json() == {SERVICE: NOTHING}
    door.chat(OPENAI_BODY)
    door.chat({**OPENAI_BODY, "stream": True})

    def told() -> dict[str, float | None]:
        report: dict[str, float | None] = door.client.get("/v1/statistics").json()[SERVICE]
        return report if None not in report.values() else {}

    report = wait_until(told, 10, "both answers are counted", interval=0.01)
    assert all(0 < value < 20 for value in report.values() if value is not None)
    assert report.keys() == NOTHING.keys()
