"""The alerts in a real Prometheus: its own tool checks them, and they fire and clear as the engine goes and comes."""

import subprocess
from pathlib import Path

import pytest

from tests.support.prometheus import Prometheus, folder, program, running
from tests.support.promql import MONITORING
from tests.support.stub_engine import StubEngine
from tests.support.waiting import free_port, wait_until

HERE = Path(__file__).parent


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(MONITORING.rglob("rules.yaml")), ids=lambda path: f"{path.parent.name}")
def test_promtool_accepts_the_rules(path: Path) -> None:
    assert "SUCCESS" in promtool("check", "rules", path)


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    targets = {name: "http://127.0.0.1:1" for name in ("llm", "engine", "machine", "accelerator", "collector")}
    assert "SUCCESS" in promtool("check", "config", folder(tmp_path, targets, every="15s"))


def test_each_alert_waits_as_long_as_it_should_and_says_what_it_should() -> None:
    promtool("test", "rules", HERE / "rules_test.yaml")


def test_an_engine_that_was_never_seen_is_loading_and_one_that_was_is_gone(tmp_path: Path) -> None:
    port = free_port()
    config = folder(tmp_path, {"engine": f"http://127.0.0.1:{port}"}, every="1s", at_once=True)

    def seen(prometheus: Prometheus, value: str) -> bool:
        return [one["value"][1] for one in prometheus.query('up{job="berth-engine"}')] == [value]

    with running(config) as prometheus:
        wait_until(lambda: seen(prometheus, "0"), 30, "Prometheus asked and nothing answered")
        wait_until(lambda: "BerthEngineNotReady" in prometheus.firing(), 30, "the rules were evaluated")
        assert "BerthEngineGone" not in prometheus.firing()
        with StubEngine(port):
            wait_until(lambda: seen(prometheus, "1"), 30, "the engine answers")
            wait_until(lambda: not prometheus.firing(), 30, "nothing is wrong")
        wait_until(lambda: "BerthEngineGone" in prometheus.firing(), 30, "the alert fires")
        with StubEngine(port):
            wait_until(lambda: "BerthEngineGone" not in prometheus.firing(), 30, "the alert is over")
