"""Progress where there is no terminal: a line when something changes, not one for every look."""

import pytest

from berth import progress
from berth.progress import Progress
from engine.phases import DOWNLOADING, LOADING, Phase


def test_a_phase_is_one_line_however_often_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as shown:
        for _ in range(50):
            shown.show(Phase(DOWNLOADING))
        shown.show(Phase(LOADING, 0.5, "1/2 files"))
    assert capsys.readouterr().err == "berth: downloading the model\nberth: loading weights 50% (1/2 files)\n"


def test_news_about_a_phase_is_another_line_after_a_while(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress() as shown:
        for second in range(8):
            now[0] = float(second)
            shown.show(Phase(LOADING, second // 2 / 4))
    assert capsys.readouterr().err.splitlines() == [
        "berth: loading weights 0%",
        "berth: loading weights 25%",
        "berth: loading weights 75%",
    ]
