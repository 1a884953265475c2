"""What benchmarks/door measures with: the engine and the generator in C, and its sums."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.door_figures import figures, goals, ratios, table
from tests.support.engine_python import ROOT

Load = Callable[..., dict[str, Any]]


def compiled(name: str, directory: Path) -> Path:
    compiler = shutil.which("cc") or pytest.skip("no C compiler here")
    made = directory / name
    words = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-o", made, ROOT / "benchmarks" / f"{name}.c"]
    subprocess.run(words, check=True)
    return made


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("programs")
    return {name: compiled(name, directory) for name in ("door_engine", "door_load")}


@pytest.fixture
def port(programs: dict[str, Path]) -> Iterator[int]:
    with subprocess.Popen([programs["door_engine"]], stdout=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        yield int(engine.stdout.readline())
        engine.kill()


@pytest.fixture
def load(programs: dict[str, Path], port: int) -> Load:
    def run(mode: str, streams: int, seconds: float, leave_every: int = 0) -> dict[str, Any]:
        words = [programs["door_load"], port, mode, streams, 0, seconds, "a-key", leave_every]
        found: dict[str, Any] = json.loads(subprocess.check_output(list(map(str, words)), text=True))
        return found

    return run


@pytest.mark.parametrize("mode", ["json", "flood"])
def test_replies_and_streams_are_counted_whole(load: Load, mode: str) -> None:
    found = load(mode, 4, 0.5)
    assert found["requests"] > 0
    assert [found[fault] for fault in ("errors", "short", "stuck", "reconnects")] == [0, 0, 0, 0]
    assert (found["all_chunks"] >= 100 * found["all_requests"]) == (mode == "flood")


def test_a_paced_stream_has_its_first_event_at_once(load: Load) -> None:
    found = load("paced", 4, 0.5)
    assert found["chunks"] >= 4
    assert found["first_us"] is not None


def test_streams_are_left_by_closing_their_connection(load: Load) -> None:
    found = load("flood", 4, 0.5, leave_every=3)
    assert found["left"] > 0
    assert (found["errors"], found["short"]) == (0, 0)


def test_the_engine_streams_what_a_client_of_openai_understands(port: int) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "flood"}], "stream": True}
    lines = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, trust_env=False).text.split("\n\n")
    pieces = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-2]]
    assert len([piece for piece in pieces if piece["delta"].get("content")]) == 100
    assert pieces[-1]["finish_reason"] == "stop"
    assert lines[-2:] == ["data: [DONE]", ""]


def row(requests: int, p50: float, **more: Any) -> dict[str, Any]:
    counts = {"requests": requests, "chunks": 0, "seconds": 2.0, "all_requests": requests, "all_chunks": 0}
    faults = {"errors": 0, "short": 0, "stuck": 0}
    return {**counts, **faults, "latency_us": [p50, 2 * p50], "first_us": None, "transit_us": None, **more}


def test_rates_are_compared_with_ours_and_latencies_with_the_engine_alone() -> None:
    raw = {
        "direct": {"json 16": [row(8000, 100.0)]},
        "ours": {"json 16": [row(4000, 350.0, cpu_s=0.2, peak_mib=50.0)]},
        "litellm": {"json 16": [row(50, 9000.0, cpu_s=2.0, peak_mib=500.0)]},
    }
    found = figures(raw)
    assert found["ours"]["json 16"]["per_s"] == 2000
    assert found["ours"]["json 16"]["added_latency_p50_ms"] == pytest.approx(0.25)
    assert found["ours"]["json 16"]["cpu_us"] == pytest.approx(50)
    assert ratios(found) == {"direct": {"json 16": 0.5}, "litellm": {"json 16": 80}}
    by = {goal.what: goal for goal in goals(found)}
    assert by["replies a second at 16, times LiteLLM's"].kept
    assert not by["events a second at 16, times nginx's"].kept  # it was not measured
    assert "litellm" in table(found)
