"""/ready while the engine starts: what it does, from the file that its own processes write."""

import fcntl
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_service.engines import health
from llm_service.engines.doing import Doing, parsed
from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until
from tests.unit.service.door import OPENAI_BODY, Door

OpenDoor = Callable[..., Door]


class PhaseFile:
    """The file as engine.announce keeps it: always as long, and locked while the engine lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w+b")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def say(self, name: str, fraction: float | None = None, detail: str = "") -> None:
        said = {"phase": {"name": name, "fraction": fraction, "detail": detail}}
        self.path.write_bytes(json.dumps(said).encode().ljust(512))

    def die(self) -> None:
        self._file.close()


@pytest.fixture(autouse=True)
def always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CACHE_SECONDS", 0.0)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[PhaseFile]:
    made = PhaseFile(tmp_path / "phase.json")
    yield made
    made.die()


def ready(door: Door) -> dict[str, Any]:
    said = door.client.get("/ready").json()
    assert isinstance(said, dict)
    return said


def test_ready_names_the_phase_of_an_engine_that_loads(open_door: OpenDoor, file: PhaseFile) -> None:
    door = open_door(StubEngine(), LLM_PHASE_FILE=str(file.path))
    file.say("starting vLLM")
    assert ready(door)["state"] == "starting"
    file.say("loading weights", 0.25, "1/4 files")
    assert ready(door) == {
        "state": "loading",
        "detail": "The engine is loading weights (25 %, 1/4 files).",
        "models": [],
        "doing": {"name": "loading weights", "fraction": 0.25, "detail": "1/4 files"},
    }
    refused = door.chat(OPENAI_BODY)
    assert (refused.status_code, refused.json()["error"]["phase"]) == (503, "loading")
    assert refused.json()["error"]["message"] == "The engine is loading weights (25 %, 1/4 files)."


def test_an_engine_that_died_while_it_loaded_is_not_said_to_load(open_door: OpenDoor, file: PhaseFile) -> None:
    door = open_door(StubEngine(), LLM_PHASE_FILE=str(file.path))
    file.say("compiling")
    assert ready(door)["state"] == "loading"
    file.die()
    said = ready(door)
    assert (said["state"], said["detail"]) == ("starting", "The engine does not run: it has ended, or has not begun.")
    assert "doing" not in said


def test_an_engine_that_answers_is_ready_whatever_its_file_says(open_door: OpenDoor, file: PhaseFile) -> None:
    engine = StubEngine()
    door = open_door(engine, LLM_PHASE_FILE=str(file.path))
    file.say("warming up")
    assert ready(door)["state"] == "loading"
    engine.listen()
    wait_until(lambda: ready(door)["state"] == "ready", 10, "ready")
    assert "doing" not in ready(door)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"phase": 3}', '{"phase": {"name": "ready"}}'])
def test_a_file_that_says_nothing_changes_nothing(open_door: OpenDoor, file: PhaseFile, text: str) -> None:
    file.path.write_text(text)
    said = ready(open_door(StubEngine(), LLM_PHASE_FILE=str(file.path)))
    assert (said["state"], said["detail"]) == (
        "starting",
        "The engine is starting: nothing listens at its address yet.",
    )


def test_a_file_that_is_not_there_changes_nothing(open_door: OpenDoor, tmp_path: Path) -> None:
    assert ready(open_door(StubEngine(), LLM_PHASE_FILE=str(tmp_path / "none")))["state"] == "starting"


def test_a_phase_in_words() -> None:
    assert Doing("compiling").words() == "compiling"
    assert Doing("warming up", None, "0/0 shapes").words() == "warming up (0/0 shapes)"
    assert parsed({"name": "x", "fraction": 7, "detail": None}) == Doing("x", 1.0)
