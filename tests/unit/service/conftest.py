"""Doors for tests: the service and a stub engine behind it."""

from collections.abc import Callable, Iterator

import pytest

from llm_service.settings import load
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


@pytest.fixture
def door(open_door: Callable[..., Door]) -> Door:
    """A door with default settings."""
    return open_door()
