"""Files about engines: which of them count, and what is said when none does."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from llm_service.engines.address import Address
from llm_service.engines.listing import Listing
from tests.unit.service.engine_files import Deployment

URL = "http://10.0.0.2:20488"


@pytest.fixture
def runs(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "runs")


def urls(runs: Deployment) -> list[str]:
    return sorted(address.url for address in Listing(runs.directory, None).read())


def test_ready_engines_count_and_no_others(runs: Deployment) -> None:
    for state in ("starting", "ready", "draining", "stopped", "failed"):
        runs.say(state, f"http://{state}:1", state)
    assert urls(runs) == ["http://ready:1"]


def test_files_may_lie_in_folders_or_side_by_side(runs: Deployment) -> None:
    runs.say("1", "http://a:1")
    runs.say("2", "http://b:1").replace(runs.directory / "anything.json")
    (runs.directory / "deployment.json").write_text('{"name": "demo"}')
    (runs.directory / "1" / "watch.json").write_text('{"state": "ready", "base_url": "http://c:1", "heartbeat": 1}')
    assert urls(runs) == ["http://a:1", "http://b:1"]


@pytest.mark.parametrize(("age", "counts"), [(0, True), (80, True), (100, False), (-80, True), (-100, False)])
def test_an_old_heartbeat_means_that_the_job_is_gone(runs: Deployment, age: float, counts: bool) -> None:
    runs.say("1", URL, heartbeat=time.time() - age)
    assert bool(urls(runs)) is counts


def test_a_directory_that_is_not_there_yet_has_no_engines(runs: Deployment) -> None:
    assert urls(runs) == []


@pytest.mark.parametrize("torn", [b"", b'{"state": "rea', b"[]", b"null", b"\xff", b'{"state": "ready"}'])
def test_a_torn_file_says_what_it_said_before(runs: Deployment, torn: bytes) -> None:
    listing = Listing(runs.directory, None)
    path = runs.say("1", URL)
    whole = listing.read()
    path.write_bytes(torn)
    assert listing.read() == whole == {Address(URL): None}
    path.unlink()
    assert listing.read() == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "ftp://x"},
        {"base_url": 7},
        {"heartbeat": "soon"},
        {"heartbeat": None},
        {"watch": 7},
        {"watch": {"phase": 7}},
    ],
)
def test_a_file_with_wrong_values_is_left_out(runs: Deployment, wrong: dict[str, Any]) -> None:
    runs.say("1", URL)
    runs.say("2", "http://b:1")
    path = runs.directory / "1" / "endpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
    assert urls(runs) == ["http://b:1"]


def test_the_key_comes_from_the_engines_own_file_else_from_the_settings(runs: Deployment, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("own-key\n")
    (tmp_path / "bad").write_text("two words\n")
    runs.say("1", "http://a:1", key_file=str(tmp_path / "key"))
    runs.say("2", "http://b:1")
    runs.say("3", "http://c:1", key_file=str(tmp_path / "none"))
    runs.say("4", "http://d:1", key_file=str(tmp_path / "bad"))
    found = Listing(runs.directory, "given").read()
    assert {address.url[7]: address.key for address in found} == {
        "a": "own-key",
        "b": "given",
        "c": "given",
        "d": "given",
    }
    assert "own-key" not in repr(found)


def test_of_two_jobs_at_one_address_the_last_one_heard_of_has_it(runs: Deployment) -> None:
    now = time.time()
    runs.say("old", URL, heartbeat=now - 60, model="old")
    runs.say("new", URL, heartbeat=now - 1, model="new")
    assert Listing(runs.directory, None).read() == {Address(URL): "new"}
    runs.say("new", URL, "draining", heartbeat=now)
    assert Listing(runs.directory, None).read() == {}


def test_an_ended_job_that_is_requeued_counts_again(runs: Deployment) -> None:
    listing = Listing(runs.directory, None)
    runs.say("1", URL, "failed")
    assert listing.read() == listing.read() == {}
    runs.say("1", URL)
    assert listing.read() == {Address(URL): None}


def test_without_a_ready_engine_it_is_told_what_the_others_do(runs: Deployment) -> None:
    listing = Listing(runs.directory, None)

    def verdict() -> tuple[str, str]:
        listing.read()
        return listing.verdict()

    assert verdict() == ("starting", "No engine is ready: none has begun to start.")
    runs.say("1", None, "starting", watch={"phase": {"name": "loading weights", "fraction": 0.4}})
    assert verdict() == ("starting", "No engine is ready: one is loading weights (40 %).")
    runs.say("2", URL, "draining")
    assert verdict() == ("starting", "No engine is ready: one is draining, one is loading weights (40 %).")
    runs.say("1", None, "failed", reason="The GPU has too little memory.", heartbeat=time.time() + 1)
    assert verdict() == ("draining", "No engine is ready: one is draining.")
    runs.say("2", URL, "stopped")
    assert verdict() == ("failed", "The engine has failed: The GPU has too little memory.")
    runs.say("1", URL, "ready", heartbeat=time.time() - 100)
    runs.say("2", URL, "stopped", heartbeat=time.time() - 200)
    assert verdict() == ("unreachable", "No engine is ready: the last one was not heard of for 90 s.")
