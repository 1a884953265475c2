"""Every query of the dashboards and the alerts, against what real vLLM, the service and the machine show."""

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.service_stack import CHAT, Stack
from tests.support.prometheus import Prometheus, folder, program, running
from tests.support.promql import BY_PROMETHEUS, Query, queries
from tests.support.waiting import free_port, wait_until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

ASKED = {"messages": [{"role": "user", "content": "What is Deep Learning?"}], "max_tokens": 24, "temperature": 0}
NAMED_BY_PROMETHEUS = {"job", "instance"}


@pytest.fixture(scope="module")
def used(stack: Stack) -> Stack:
    """The stack after requests of every kind that counts: whole, streamed, refused, and left by their client."""
    for stream in (False, True):
        assert stack.chat({**ASKED, "stream": stream}).status_code == 200
    assert stack.chat({**ASKED, "max_tokens": -1}).status_code == 400
    endless = {**ASKED, "max_tokens": 2000, "ignore_eos": True, "stream": True}
    with stack.client.stream("POST", f"{stack.url}{CHAT}", json=endless) as reply:
        next(reply.iter_bytes())
    wait_until(lambda: "client gone" in shown_text(stack.url), 60, "the service counted the client that left")
    return stack


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the machine's exporter."""
    port = free_port()
    log = tmp_path_factory.mktemp("machine") / "log"
    words: list[str | Path] = [program("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{port}"]
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        try:
            return httpx.get(url, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, 60, "the exporter answers")
    yield url
    process.terminate()
    process.wait(30)


def shown_text(url: str) -> str:
    return httpx.get(f"{url}/metrics", trust_env=False, timeout=60).text


def shown(url: str) -> dict[str, set[str]]:
    """Every metric that an address shows, and its labels; one of which nothing was counted yet has none."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(shown_text(url)):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        for suffix in suffixes:
            found.setdefault(f"{family.name}{suffix}", set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def unknown(query: Query, known: dict[str, set[str]]) -> list[str]:
    """What a query expects and nobody shows."""
    lines = []
    for name, labels in query.used.items():
        if name not in known:
            lines.append(f"{query.place}: no metric {name}")
        elif gone := labels - known[name] - NAMED_BY_PROMETHEUS:
            lines.append(f"{query.place}: {name} has no label {', '.join(sorted(gone))}")
    return lines


def asked(prometheus: Prometheus) -> str:
    """The health of the service once it was asked."""
    return prometheus.targets().get("berth-llm", "unknown").removeprefix("unknown")


def test_every_metric_and_label_is_one_that_is_shown(used: Stack, machine: str) -> None:
    known = {**BY_PROMETHEUS}
    for url in (used.url, used.engine, machine):
        for name, labels in shown(url).items():
            known[name] = known.get(name, set()) | labels
    assert [line for query in queries() for line in unknown(query, known)] == []


def test_prometheus_finds_something_for_every_panel(used: Stack, machine: str, tmp_path: Path) -> None:
    """The shipped configuration, in a real Prometheus. Alerts are quiet: nothing is wrong."""
    config = folder(tmp_path, {"llm": used.url, "engine": used.engine, "machine": machine}, every="1s")
    with running(config) as prometheus:
        up = dict.fromkeys(("berth-llm", "berth-engine", "berth-machine"), "up")
        wait_until(lambda: prometheus.targets() == up, 60, "Prometheus reaches all three")

        def silent() -> list[str]:
            used.chat({**ASKED, "stream": True})
            panels = [query for query in queries() if "rules.yaml" not in query.place]
            return [query.place for query in panels if not prometheus.query(query.text)]

        wait_until(lambda: not silent(), 60, "every panel has something to show", interval=1)
        for query in queries():
            prometheus.query(query.text)
        assert prometheus.firing() == set()


def test_prometheus_shows_a_key_where_the_service_asks_for_one(
    open_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    guarded = open_stack(key="sesame").url
    for key, health in (("sesame", "up"), ("", "down")):
        config = folder(tmp_path / health, {"llm": guarded}, every="1s", key=key)
        with running(config) as prometheus:
            found = wait_until(partial(asked, prometheus), 30, "Prometheus asked")
            assert found.split()[0] == health
            assert ("401" in found) == (health == "down")
