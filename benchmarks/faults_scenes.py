"""What may go wrong behind the service, and what its clients saw of it: one function a fault."""

import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from door_contestants import free_port
from door_machine import ROOT, environment
from faults_client import Outcome, ask

sys.path.insert(0, str(ROOT))
from tests.support.stub_engine import StubEngine

CLIENTS = 64


@dataclass
class Scene:
    """What clients saw of one fault. `figures` are in ms unless their name says otherwise."""

    name: str
    outcomes: list[Outcome]
    wanted: tuple[str, ...]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many saw what."""
        kinds = [outcome.kind for outcome in self.outcomes]
        return {kind: kinds.count(kind) for kind in ("right", "told", "refused", "wrong")}

    @property
    def kept(self) -> bool:
        """Whether every client saw what it should."""
        return bool(self.outcomes) and all(outcome.kind in self.wanted for outcome in self.outcomes)


@dataclass
class Service:
    """A running service."""

    process: asyncio.subprocess.Process
    port: int

    async def exited(self) -> float:
        """When it ended, by time.monotonic."""
        await self.process.wait()
        return time.monotonic()

    async def back(self, limit_s: float = 30.0) -> float:
        """When a chat is answered again, by time.monotonic; `limit_s` from now at the latest."""
        deadline = time.monotonic() + limit_s
        while True:
            outcome = await ask(self.port, stream=False)
            if outcome.kind == "right" or outcome.ended > deadline:
                return outcome.ended
            await asyncio.sleep(0.02)


@asynccontextmanager
async def service(engine: str, **settings: str) -> AsyncIterator[Service]:
    """This checkout's service in front of one engine, listening."""
    python = environment("venv", "requirements/cli.txt", "microservice/requirements.txt") / "python"
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_", "VLLM_"))}
    own = {"LLM_VLLM_ENDPOINT": engine, "LLM_USVC_PORT": str(port), "PYTHONPATH": str(ROOT / "microservice")}
    with tempfile.TemporaryFile() as log:
        environ = {**clean, **own, **settings}
        words = (python, "-P", "-m", "llm_service")
        process = await asyncio.create_subprocess_exec(*words, env=environ, stdout=log, stderr=log)
        try:
            while (await ask(port, stream=False)).kind == "refused":
                if process.returncode is not None:
                    log.seek(0)
                    raise SystemExit(log.read().decode(errors="replace"))
                await asyncio.sleep(0.05)
            yield Service(process, port)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def many(port: int, stream: bool, count: int = CLIENTS) -> tuple[list[asyncio.Task[Outcome]], list[asyncio.Event]]:
    """Start clients; the events say that each has a piece of its answer."""
    begun = [asyncio.Event() for _ in range(count)]
    return [asyncio.ensure_future(ask(port, stream, event)) for event in begun], begun


async def every(events: list[asyncio.Event]) -> None:
    """Wait for all of them. Raises TimeoutError after 30 s."""
    async with asyncio.timeout(30):
        await asyncio.gather(*(event.wait() for event in events))


async def killed_in_streams() -> Scene:
    """The engine dies while it streams, and another comes up in its place."""
    engine = StubEngine()
    engine.listen()
    try:
        engine.knobs.piece_seconds = 0.5
        async with service(engine.url) as ours:
            tasks, begun = many(ours.port, stream=True)
            await every(begun)
            engine.kill()
            died = time.monotonic()
            outcomes = await asyncio.gather(*tasks)
            port = engine.port
            engine.close()
            engine = StubEngine(port)
            engine.listen()
            up = time.monotonic()
            back = await ours.back()
    finally:
        engine.close()
    last = max(outcome.ended for outcome in outcomes)
    return Scene(
        "engine killed in mid-stream",
        outcomes,
        ("told",),
        {"last told after": ms(died, last), "back after": ms(up, back)},
    )


async def silent(where: str, stream: bool, setting: str) -> Scene:
    """The engine hangs: before its first byte, or between two pieces. The limit is one second."""
    with StubEngine() as engine:
        async with service(engine.url, **{setting: "1"}) as ours:
            engine.knobs.hold = where
            outcomes = await asyncio.gather(*many(ours.port, stream)[0])
            engine.knobs.hold = None
            freed = time.monotonic()
            back = await ours.back()
    late = [outcome.ms - 1000 for outcome in outcomes]
    figures = {"p50 over the limit": statistics.median(late), "highest": max(late), "back after": ms(freed, back)}
    return Scene(f"engine hangs {where}, {'streams' if stream else 'whole replies'}", outcomes, ("told",), figures)


async def loading() -> Scene:
    """Nothing listens yet; then the engine comes up."""
    engine = StubEngine()
    try:
        async with service(engine.url) as ours:
            outcomes = await asyncio.gather(*many(ours.port, stream=True)[0])
            engine.listen()
            up = time.monotonic()
            back = await ours.back()
    finally:
        engine.close()
    figures = {"p50": statistics.median(outcome.ms for outcome in outcomes), "ready after": ms(up, back)}
    return Scene("engine dies or is down while it loads", outcomes, ("told",), figures)


async def garbage() -> Scene:
    """The engine answers with what is not HTTP."""
    with StubEngine() as engine:
        async with service(engine.url) as ours:
            engine.knobs.garbage = True
            outcomes = await asyncio.gather(*many(ours.port, stream=False)[0])
            engine.knobs.garbage = False
            mended = time.monotonic()
            back = await ours.back()
    figures = {"p50": statistics.median(outcome.ms for outcome in outcomes), "back after": ms(mended, back)}
    return Scene("engine answers garbage", outcomes, ("told",), figures)


async def left() -> Scene:
    """Clients leave in mid-stream: how long until the engine is rid of each. The outcomes are of those that stay."""
    with StubEngine() as engine:
        engine.knobs.piece_seconds = 0.5
        async with service(engine.url) as ours:
            staying, begun = many(ours.port, stream=True)
            leaving, begun_too = many(ours.port, stream=True)
            await every([*begun, *begun_too])
            gone = time.monotonic()
            for task in leaving:
                task.cancel()
            async with asyncio.timeout(30):
                while sum(record.client_left for record in engine.chats) < CLIENTS:  # noqa: ASYNC110 (another thread's)
                    await asyncio.sleep(0.001)
            freed = time.monotonic()
            outcomes = await asyncio.gather(*staying)
    return Scene("clients leave in mid-stream", outcomes, ("right",), {"last stopped at the engine": ms(gone, freed)})


async def stopped_under_load() -> Scene:
    """SIGTERM to the service with streams and whole replies running; all that had begun must end rightly."""
    with StubEngine() as engine:
        engine.knobs.piece_seconds = 0.3
        async with service(engine.url, LLM_DRAIN_TIMEOUT_SECONDS="20") as ours:
            tasks, begun = many(ours.port, stream=True)
            await every(begun)
            ours.process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            exited = asyncio.ensure_future(ours.exited())
            late: list[Outcome] = []
            while not exited.done():
                late.append(await ask(ours.port, stream=False))
                await asyncio.sleep(0.005)
            outcomes = await asyncio.gather(*tasks)
            code = await ours.process.wait()
    last = max(outcome.ended for outcome in outcomes)
    after = [outcome for outcome in late if outcome.began > asked + 0.1]
    strange = sum(outcome.kind not in ("told", "refused") for outcome in after)
    figures = {"exit after the last reply": ms(last, exited.result()), "exit code": code, "came too late": len(after)}
    return Scene("SIGTERM under load", outcomes, ("right",), {**figures, "of these not told so": strange})


def ms(begin: float, end: float) -> float:
    """The milliseconds between two readings of the clock."""
    return (end - begin) * 1000


FIRST, IDLE = "LLM_FIRST_BYTE_TIMEOUT_SECONDS", "LLM_IDLE_TIMEOUT_SECONDS"
SCENES: dict[str, Callable[[], Awaitable[Scene]]] = {
    "killed": killed_in_streams,
    "hangs-first": lambda: silent("before headers", True, FIRST),
    "hangs-first-whole": lambda: silent("before headers", False, FIRST),
    "hangs-between": lambda: silent("after first piece", True, IDLE),
    "loading": loading,
    "garbage": garbage,
    "left": left,
    "sigterm": stopped_under_load,
}
