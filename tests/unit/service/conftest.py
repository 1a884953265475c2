"""Doors for tests: the service and a stub engine behind it."""

from collections.abc import Callable, Iterator

import pytest

from llm_service.loading import load
from tests.support.stub_engine import StubEngine
from tests.unit.service.door import Door, Running


@pytest.fixture
def open_door() -> Iterator[Callable[..., Door]]:
    """Make doors with chosen settings; `engine` may be a stub that does not listen yet."""
    doors: list[Door] = []

    def make(engine: StubEngine | None = None, /, **environ: str) -> Door:
        if engine is None:
            engine = StubEngine()
            engine.listen()
        settings = load({"LLM_VLLM_ENDPOINT": engine.url, **environ})
        door = Door(engine, Running(settings))
        doors.append(door)
        return door

    yield make
    for door in doors:
        door.client.close()
        door.engine.close()
        door.service.stop()


@pytest.fixture(scope="session")
def _shared_door() -> Iterator[Door]:
    engine = StubEngine()
    engine.listen()
    door = Door(engine, Running(load({"LLM_VLLM_ENDPOINT": engine.url})))
    yield door
    door.client.close()
    door.engine.close()
    door.service.stop()


@pytest.fixture
def door(_shared_door: Door) -> Door:
    """A door with default settings. Tests that change its models, or kill the engine, open their own."""
    _shared_door.engine.reset()
    return _shared_door
