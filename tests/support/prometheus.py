"""A real Prometheus for tests: .berth/prometheus, which tests/lab/prometheus fetches, or the one on PATH."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.promql import MONITORING, ROOT
from tests.support.waiting import free_port, wait_until


def program(name: str) -> Path:
    """Where `prometheus`, `promtool` or `prometheus-node-exporter` is; skips the test where it is not."""
    own = ROOT / ".berth" / "prometheus" / name
    found = own if own.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here (`tests/lab/prometheus up` fetches it on Debian)")
    return Path(found)


class Prometheus:
    """A Prometheus that runs, asked by its HTTP API."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def answers(self) -> bool:
        """Whether it has started."""
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def query(self, text: str) -> list[dict[str, Any]]:
        """The series that a query gives now; raises AssertionError with what Prometheus says of a wrong one."""
        reply = self._client.get("/api/v1/query", params={"query": text}).json()
        assert reply["status"] == "success", f"{reply.get('error')}: {text}"
        result = reply["data"]["result"]
        return result if isinstance(result, list) else [result]

    def targets(self) -> dict[str, str]:
        """The health of what it asks, by job."""
        active = self._client.get("/api/v1/targets").json()["data"]["activeTargets"]
        return {target["labels"]["job"]: f"{target['health']} {target['lastError']}".strip() for target in active}

    def firing(self) -> set[str]:
        """The alerts that fire now."""
        alerts = self._client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def close(self) -> None:
        """Leave it."""
        self._client.close()


def folder(place: Path, targets: Mapping[str, str], *, every: str, at_once: bool = False, key: str = "") -> Path:
    """Lay out the shipped configuration with targets of one's own, and return its file.

    `at_once` makes every alert fire without its patience, so that a test need not wait minutes.
    """
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    rules = yaml.safe_load((MONITORING / "rules.yaml").read_text(encoding="utf-8"))
    for rule in (rule for group in rules["groups"] for rule in group["rules"] if at_once):
        rule.pop("for", None)
    for part in ("rules", "targets"):
        (place / part).mkdir(parents=True, exist_ok=True)
    (place / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (place / "rules" / "berth.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    (place / "metrics_key").write_text(key, encoding="utf-8")
    for name, address in targets.items():
        said = [{"targets": [address.split("://")[-1]], "labels": {"__scheme__": address.split("://")[0]}}]
        (place / "targets" / f"{name}.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
    return place / "prometheus.yaml"


@contextmanager
def running(config: Path) -> Iterator[Prometheus]:
    """Start a Prometheus with a configuration, and stop it with the block."""
    port = free_port()
    words: Sequence[str | Path] = [
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = config.parent / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT)
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text(encoding="utf-8")[-2000:]
            return prometheus.answers()

        wait_until(ready, 60, "Prometheus is ready")
        yield prometheus
    finally:
        prometheus.close()
        process.terminate()
        process.wait(30)
