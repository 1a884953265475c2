"""Requests in front of one admission, without a port: who got in, and in which order."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from llm_service.config.loading import load
from llm_service.errors import ServiceError
from llm_service.lock.admission import Admission
from llm_service.lock.keys import Key

ALICE, BOB, CAROL = (Key(name, name.encode()) for name in ("alice", "bob", "carol"))


def made(places: int = 1, room: int = 10, **environ: str) -> Admission:
    return Admission(load({"LLM_MAX_IN_FLIGHT": str(places), "LLM_MAX_QUEUED": str(room), **environ}))


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


class Crowd:
    """Requests in front of one admission: who got in, in which order."""

    def __init__(self, door: Admission) -> None:
        self.door = door
        self.order: list[str] = []

    def come(self, key: Key | None, name: str = "") -> "asyncio.Task[None]":
        async def enter() -> None:
            await self.door.enter(key)
            self.order.append(name)

        return asyncio.ensure_future(enter())


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def refusal(task: "asyncio.Task[None]") -> ServiceError:
    error = task.exception()
    assert isinstance(error, ServiceError)
    return error
