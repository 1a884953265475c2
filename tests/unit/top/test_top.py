"""What `berth top` sees of deployments on this machine and on a cluster, and how it draws them."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from berth.errors import failed
from berth.kubernetes import kubectl
from berth.runtimes import Endpoint, Status
from berth.top import looking, view
from berth.top.here import Here
from berth.top.jobs import Jobs
from berth.top.pods import Pods
from berth.top.sample import HEADS, Sample
from tests.support import fake_slurm

METRICS = """vllm:num_requests_running{{engine="0"}} 3.0
vllm:num_requests_waiting{{engine="0"}} 2.0
vllm:kv_cache_usage_perc{{engine="0"}} 0.5
vllm:generation_tokens_total{{engine="0"}} {tokens}
vllm:time_to_first_token_seconds_bucket{{engine="0",le="0.1"}} {requests}
vllm:time_to_first_token_seconds_bucket{{engine="0",le="+Inf"}} {requests}
"""


class Server(BaseHTTPRequestHandler):
    """Engine and service in one: `pages` are its bodies by path; what is missing needs a key."""

    pages: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        body = self.pages.get(self.path, "").encode()
        self.send_response(200 if self.path in self.pages else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    Server.pages = {"/ready": '{"state": "ready"}', "/health": ""}
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Fake:
    """A runtime of which only the status is asked."""

    name, local = "compose", True

    def __init__(self, state: str, url: str = "") -> None:
        where = Endpoint(url, url) if url else None
        self.said = Status("compose", state, "cpu", "demo", endpoint=where, facts={"project": "berth"})

    def status(self, deployment: Any = None) -> Status:
        return self.said


def here(state: str, url: str = "") -> Here:
    return Here(Fake(state, url))  # type: ignore[arg-type]


def counted(tokens: int, requests: int) -> None:
    Server.pages["/metrics"] = METRICS.format(tokens=tokens, requests=requests)


def test_what_runs_here_is_told_by_its_engine(url: str) -> None:
    place = here("running", url)
    counted(100, 4)
    first, began = place.look()[0], time.monotonic()
    assert (first.state, first.in_flight, first.queue, first.kv_cache_use) == ("ready", 3, 2, 0.5)
    assert (first.tokens_per_s, first.time_to_first_token_s) == (0.0, None)
    counted(150, 6)
    second = place.look()[0]
    assert second.tokens_per_s is not None
    assert second.tokens_per_s >= 49 / (time.monotonic() - began)
    assert second.time_to_first_token_s == 0.05


def test_requests_that_wait_in_the_service_wait_too(url: str) -> None:
    counted(0, 0)
    Server.pages["/metrics"] += "berth_requests_queued 5.0\n"
    assert here("running", url).look()[0].queue == 7


def test_an_engine_that_loads_tells_its_phase_and_no_figures(url: str) -> None:
    doing = '{"name": "loading weights", "fraction": 0.25, "detail": "1/4 files"}'
    Server.pages["/ready"] = f'{{"state": "loading", "detail": "The engine is loading.", "doing": {doing}}}'
    seen = here("starting", url).look()[0]
    assert (seen.state, seen.phase, seen.fraction) == ("starting", "loading weights", 0.25)
    assert (seen.in_flight, seen.tokens_per_s) == (None, None)
    assert "loading weights 25%" in seen.cells()


def test_a_service_that_asks_for_a_key_hides_no_figure_of_the_engine(url: str) -> None:
    del Server.pages["/ready"]
    counted(0, 0)
    assert here("running", url).look()[0].in_flight == 3


def test_an_engine_out_of_reach_is_told_by_its_service(url: str) -> None:
    Server.pages["/metrics"] = "berth_requests_in_flight 4.0\nberth_requests_queued 1.0\n"
    place = Here(Fake("running", ""))  # type: ignore[arg-type]
    place._runtime.said = Status("hosts", "running", endpoint=Endpoint(url, ""), ready=True)  # type: ignore[attr-defined]
    seen = place.look()[0]
    assert (seen.state, seen.in_flight, seen.queue, seen.tokens_per_s) == ("ready", 4, 1, None)


def test_pods_are_asked_from_the_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(words: list[str]) -> str:
        asked.append(words)
        return METRICS.format(tokens=9, requests=1)

    monkeypatch.setattr(
        kubectl, "objects", lambda *_: [pod("engine-1", True), pod("engine-2", False), pod("llm", True)]
    )
    monkeypatch.setattr(kubectl, "run", run)
    first, second = Pods(Fake("running")).look()  # type: ignore[arg-type]
    assert (first.name, first.state, first.in_flight, first.kv_cache_use) == ("engine-1", "ready", 3, 0.5)
    assert (second.name, second.state, second.phase, second.in_flight) == (
        *("engine-2", "pending", "waiting for a node"),
        None,
    )
    assert [words[:2] for words in asked] == [["exec", "engine-1"]]


def pod(name: str, ready: bool) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": name.partition("-")[0]}
    conditions = [{"type": "Ready", "status": "True"}] if ready else [{"type": "PodScheduled", "status": "False"}]
    status = {"phase": "Running" if ready else "Pending", "conditions": conditions}
    began = [{"name": "engine", "state": {"running": {}}}] if ready else []
    return {"metadata": {"name": name, "labels": labels}, "status": {**status, "containerStatuses": began}}


def test_nothing_that_runs_is_no_sample() -> None:
    assert here("stopped").look() == []


def test_jobs_tell_what_their_endpoint_files_hold(tmp_path: Path) -> None:
    lines = "".join(f"{job}|RUNNING|None|n1|1|N/A|N/A|1:00:00|berth-x\n" for job in ("7", "8"))
    store = fake_slurm.store(tmp_path, squeue=lines)
    watched = {"requests_running": 4, "requests_waiting": 0, "generation_tokens_per_s": 88.5, "kv_cache_use": 0.75}
    for name, job, state in (("big", "7", "ready"), ("new", "8", "starting")):
        fake_slurm.deployment(store, name, job)
        phase = {"phase": {"name": "compiling", "fraction": 0.5, "detail": ""}}
        said = {**watched, **phase, "time_to_first_token_s": 0.125}
        fake_slurm.run(store, name, job, state=state, model="m", heartbeat=time.time(), watch=said)
    big, new = Jobs(store).look()
    assert big.cells()[:4] == ("slurm", "big 7", "m", "ready")
    assert (big.tokens_per_s, big.time_to_first_token_s, big.kv_cache_use) == (88.5, 0.125, 0.75)
    assert big.time_left_s == 3600
    assert (new.phase, new.fraction, new.in_flight) == ("compiling", 0.5, None)
    assert [one.name for one in Jobs(store, "new").look()] == ["new 8"]


class Place:
    """A place whose look the test has set."""

    name = "slurm"

    def __init__(self, *samples: Sample, why: str = "") -> None:
        self.samples, self.why = list(samples), why

    def look(self) -> list[Sample]:
        if self.why:
            raise failed(self.why, "wait")
        return self.samples


def sample(runtime: str = "compose", **more: Any) -> Sample:
    return Sample(runtime, "berth", "demo", "cpu", "ready", **more)


def test_a_place_that_does_not_answer_holds_up_no_other() -> None:
    seen = looking.look([Place(why="the login node does not answer"), Place(sample())])
    assert seen.samples == (sample(),)
    assert seen.notes == ("slurm: the login node does not answer",)
    assert looking.look([]).samples == ()


def drawn(*looks: looking.Look, width: int = 120) -> str:
    console, drawing = Console(width=width, record=True, file=open("/dev/null", "w")), view.View()  # noqa: SIM115
    for look in looks:
        picture = drawing.draw(look, width)
    console.print(picture)
    text = console.export_text()
    console.file.close()
    return text


def test_the_table_has_the_columns_that_say_something() -> None:
    text = drawn(looking.Look((sample(in_flight=3, tokens_per_s=12.0, time_to_first_token_s=0.05),)))
    for word in ("in flight", "12.0", "50 ms", "demo", "ready"):
        assert word in text
    assert "time left" not in text
    assert "KV cache" not in text


def test_the_speed_of_the_last_looks_is_drawn_and_forgotten_with_its_deployment() -> None:
    looks = [looking.Look((sample(tokens_per_s=speed),)) for speed in (0.0, 50.0, 100.0)]
    assert "▁▅█" in drawn(*looks)
    assert "▅" not in drawn(*looks, looking.Look(()), looks[2])


def test_nothing_that_runs_and_a_silent_place_are_said() -> None:
    text = drawn(looking.Look((), ("slurm: the login node does not answer",)))
    assert "nothing runs here" in text
    assert "slurm: the login node does not answer" in text


@pytest.mark.parametrize("width", [20, 60, 79, 80, 200])
def test_any_width_is_kept(width: int) -> None:
    full = sample(fraction=0.5, phase="x", in_flight=1, queue=2, tokens_per_s=3e6, kv_cache_use=1.0, time_left_s=99999)
    assert max(map(len, drawn(looking.Look((full, sample("slurm"))), width=width).splitlines())) <= width
    assert len(full.cells()) == len(HEADS)
