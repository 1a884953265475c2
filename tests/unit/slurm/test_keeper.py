"""The process behind `berth connect`, on a login node: what it tells the local door, and when it gives up."""

import asyncio
import dataclasses
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from berth.slurm import keeper as keeping
from berth.slurm.keeper import Keeper
from berth.slurm.site import Site
from tests.support import fake_slurm
from tests.support.stub_engine import StubEngine
from tests.support.waiting import free_port

KEY = "the-key"
BOUND_S = 30.0  # for hangs


@pytest.fixture
def engine() -> Iterator[StubEngine]:
    """A door that asks for the key."""
    with StubEngine() as made:
        made.knobs.api_key = KEY
        yield made


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Keeper]:
    """Makes the keeper of a deployment `demo` in a store of the test's own, where Slurm says what it is told to."""
    place = tmp_path / "connection"
    (place / "endpoints").mkdir(parents=True)
    (place / "api_key").write_text(KEY)

    def make(**slurm: Any) -> Keeper:
        site = {each.name: getattr(Site(scratch=str(tmp_path)), each.name) for each in dataclasses.fields(Site)}
        made = Keeper({"name": "demo", "port": free_port(), "site": site}, place)
        made.store = fake_slurm.store(tmp_path, **slurm)
        return made

    monkeypatch.setattr(keeping, "QUEUE_S", 0.0)
    return make


def say(made: Keeper, run: str, url: str, **said: Any) -> None:
    """A run writes its endpoint file."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    now = time.time()
    about = {"state": "ready", "model": "demo", "heartbeat": now, "started": now, "node": "n1", **said}
    place = Path(made.store.deployment_dir("demo"), "runs", run)
    (place / "endpoint.json").unlink(missing_ok=True)
    if place.exists():
        (place / "batch.log").unlink()
        place.rmdir()
    fake_slurm.run(made.store, "demo", run, base_url=url, host=host, port=int(port), **about)


def told(made: Keeper) -> dict[str, dict[str, Any]]:
    """What the local door may read."""
    return {file.stem: json.loads(file.read_text()) for file in (made.directory / "endpoints").glob("*.json")}


async def look_until(made: Keeper, condition: Callable[[], bool], look: Callable[[], Awaitable[None]]) -> None:
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline, made.state
        await look()
        await asyncio.sleep(0.02)


async def test_a_ready_run_is_told_to_the_door_once_it_answers(kept: Callable[..., Keeper], engine: StubEngine) -> None:
    made = kept()
    say(made, "12", engine.url)
    await look_until(made, lambda: bool(told(made)), made.look)
    assert told(made)["12"]["base_url"] == engine.url
    assert told(made)["12"]["state"] == "ready"
    assert made.state.state == "ready"


async def test_a_run_that_does_not_answer_is_not_told_and_the_reason_is_kept(kept: Callable[..., Keeper]) -> None:
    made = kept()
    say(made, "12", f"http://127.0.0.1:{free_port()}")
    await look_until(made, lambda: "12" in made.lines and "refused" in made.lines["12"].trouble()[0], made.look)
    assert told(made) == {}
    assert made.state.state == "waiting"


class Refuses(BaseHTTPRequestHandler):
    """A door that knows another key."""

    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        pass


async def test_a_run_with_another_key_is_not_told(kept: Callable[..., Keeper]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = kept()
    say(made, "12", f"http://127.0.0.1:{server.server_address[1]}")
    await look_until(made, lambda: "12" in made.lines and "key" in made.lines["12"].trouble()[0], made.look)
    assert told(made) == {}
    server.shutdown()
    server.server_close()


async def test_a_door_that_cannot_be_reached_fails_with_a_remedy(
    kept: Callable[..., Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "UNREACHED_S", 0.2)
    made = kept()
    say(made, "12", f"http://127.0.0.1:{free_port()}")
    await look_until(made, lambda: made.state.state == "failed", made.look)
    assert "demo is ready and cannot be reached from here" in made.state.reason
    assert "SITE_TRANSPORT" in made.state.hint


async def test_a_successor_is_told_beside_the_one_that_drains_and_what_ended_goes(
    kept: Callable[..., Keeper], engine: StubEngine
) -> None:
    made = kept()
    say(made, "12", engine.url, state="draining")
    say(made, "13", engine.url)
    await look_until(made, lambda: len(told(made)) == 2, made.look)
    assert {run: said["state"] for run, said in told(made).items()} == {"12": "draining", "13": "ready"}
    say(made, "12", engine.url, state="stopped")
    await look_until(made, lambda: told(made).keys() == {"13"}, made.look)


async def test_a_run_that_says_nothing_any_more_goes(kept: Callable[..., Keeper], engine: StubEngine) -> None:
    made = kept(squeue="")
    say(made, "12", engine.url)
    await look_until(made, lambda: bool(told(made)), made.look)
    say(made, "12", engine.url, heartbeat=time.time() - 1000)
    await look_until(made, lambda: not told(made), made.look)


async def test_a_requeued_job_that_comes_back_elsewhere_gets_a_line_of_its_own(
    kept: Callable[..., Keeper], engine: StubEngine
) -> None:
    made = kept()
    say(made, "12", f"http://127.0.0.1:{free_port()}")
    await made.look()
    say(made, "12", engine.url)
    await look_until(made, lambda: bool(told(made)), made.look)
    assert told(made)["12"]["base_url"] == engine.url


async def test_times_are_told_by_the_clock_of_this_machine(kept: Callable[..., Keeper], engine: StubEngine) -> None:
    made = kept()
    made._offset = 3600.0  # the cluster's clock is an hour ahead
    say(made, "12", engine.url, heartbeat=time.time() + 3600)
    await look_until(made, lambda: bool(told(made)), made.look)
    assert abs(told(made)["12"]["heartbeat"] - time.time()) < BOUND_S


async def test_it_ends_when_no_job_is_left_and_says_how_the_last_one_ended(kept: Callable[..., Keeper]) -> None:
    made = kept(squeue="", sacct=fake_slurm.NO_ACCOUNTS)
    say(made, "12", "http://127.0.0.1:1", state="failed", reason="out of memory")
    await made.look()
    assert made.state.state == "ended"
    assert made.state.reason == "demo has no job any more: job 12 failed (out of memory)"


async def test_it_waits_for_a_job_that_is_still_queued(kept: Callable[..., Keeper]) -> None:
    made = kept(squeue="13|PENDING|Priority||1|N/A|N/A|10:00|demo\n")
    fake_slurm.deployment(made.store, "demo", "13")
    await made.look()
    assert made.state.state == "waiting"
    assert made.state.trouble == "job 13 pending (Priority)"
