"""Doors for tests: the service and a stub engine behind it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_service.config.loading import load
from llm_service.engines import health, pool
from tests.support.stub_engine import StubEngine
from tests.unit.service.door import Door, Running
from tests.unit.service.engine_files import Deployment


@pytest.fixture
def begin() -> Iterator[Callable[..., Any]]:
    """Begin an engine. They end after the door does, which asks them all the time."""
    begun: list[StubEngine] = []

    def one(kind: type[StubEngine] = StubEngine) -> StubEngine:
        begun.append(kind())
        begun[-1].listen()
        return begun[-1]

    yield one
    for engine in begun:
        engine.close()


@pytest.fixture
def open_door(begin: object) -> Iterator[Callable[..., Door]]:
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


@pytest.fixture
def quick_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are looked at all the time, so that a test need not wait for it."""
    monkeypatch.setattr(pool, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(health, "CACHE_SECONDS", 0.02)


@pytest.fixture
def two(begin: Any) -> tuple[StubEngine, StubEngine]:
    """Two engines."""
    return begin(), begin()


@pytest.fixture
def pooled(open_door: Callable[..., Door]) -> Callable[..., Door]:
    """Make a door in front of several engines; its own stub engine is none of them."""

    def make(*engines: StubEngine, **environ: str) -> Door:
        return open_door(LLM_VLLM_ENDPOINT=", ".join(engine.url for engine in engines), **environ)

    return make


@pytest.fixture
def runs(tmp_path: Path) -> Deployment:
    """A directory of files about engines."""
    return Deployment(tmp_path)
