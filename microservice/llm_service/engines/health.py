"""What the engine is doing, from its own signals: connections, /health and /v1/models. It never generates text."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from llm_service.engines import doing
from llm_service.engines.doing import Doing
from llm_service.engines.relay import Phase, Relay
from llm_service.errors import EngineNotReady, ServiceError
from llm_service.forms.replies import door_refusal

CACHE_SECONDS = 1.5
PROBE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Model:
    """One model that the engine lists; `window` is its context in tokens, when stated."""

    name: str
    window: int | None


@dataclass(frozen=True, slots=True)
class State:
    """The engine's phase, one sentence about it, what it serves, and what its start does where that is known."""

    phase: Phase
    detail: str
    models: tuple[Model, ...] = field(default=())
    doing: Doing | None = None

    @property
    def ready(self) -> bool:
        """Whether a chat request would be answered."""
        return self.phase is Phase.READY

    def public(self) -> dict[str, Any]:
        """Return the state for /ready and /v1/health_check."""
        models = [model.name for model in self.models]
        step = {"doing": self.doing.public()} if self.doing else {}
        return {"state": self.phase, "detail": self.detail, "models": models, **step}


class EngineWatch:
    """Asks one engine for its state at most once per CACHE_SECONDS, however many clients want to know."""

    def __init__(self, relay: Relay, phase_file: Path | None = None) -> None:
        self._relay = relay
        self._phase_file = phase_file
        self.last = State(Phase.STARTING, "The engine has not been asked yet.")
        self.good = False
        """Whether requests may go there: it was seen ready, and nothing since then spoke against it."""
        self.models: tuple[Model, ...] = ()
        """What it served when it was last seen ready."""
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    def check(self) -> asyncio.Task[None] | None:
        """Begin to ask the engine, unless it was asked lately; return the question that is under way, if one is."""
        if self._asking is None and time.monotonic() - self._asked_at >= CACHE_SECONDS:
            self._asking = asyncio.ensure_future(self._ask())
        return self._asking

    async def state(self) -> State:
        """Return the engine's state, at most CACHE_SECONDS old."""
        if asking := self.check():
            await asyncio.wait((asking,))
        return self.last

    def doubt(self) -> None:
        """Take note that a request failed in a way that says the engine, or its model, is no longer there."""
        self.good = False
        self.last = State(Phase.UNREACHABLE, "The engine failed to answer a request, and is being asked how it is.")
        self._asked_at = float("-inf")

    async def stop(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    async def _ask(self) -> None:
        try:
            self.last = self._with_its_own_words(await self._probe())
            self.good = self.last.ready
            self.models = self.last.models or self.models
            self._asked_at = time.monotonic()
        finally:
            self._asking = None

    async def _probe(self) -> State:
        try:
            status, _, _ = await self._relay.get("/health", PROBE_SECONDS)
            if status != 200 and not await self._routes():
                return State(Phase.FAILED, f"The engine has failed: it says that it is not healthy (status {status}).")
            status, _, body = await self._relay.get("/v1/models", PROBE_SECONDS)
        except EngineNotReady as error:
            return _not_ready(error)
        except ServiceError:
            return State(Phase.LOADING, "The engine is loading: it accepts connections but does not answer yet.")
        if status == 401:
            return State(Phase.FAILED, "The engine refuses this service's key; set VLLM_API_KEY.")
        if isinstance(refusal := door_refusal(status, body), EngineNotReady):
            return _not_ready(refusal)
        models = _models(body) if status == 200 else ()
        if not models:
            return State(Phase.LOADING, "The engine is loading: it answers but lists no model yet.")
        return State(Phase.READY, "The engine answers requests.", models)

    async def _routes(self) -> bool:
        """Whether it is vLLM's router, which is not healthy as soon as one engine is not, and has others that are."""
        status, _, _ = await self._relay.get("/readiness", PROBE_SECONDS)
        return status == 200

    def _with_its_own_words(self, state: State) -> State:
        """Of an engine that does not answer yet, say what it says of its start, where it keeps a file for that."""
        if self._phase_file is None or state.phase not in (Phase.STARTING, Phase.LOADING):
            return state
        told = doing.read(self._phase_file)
        if told is None:
            return state
        if not told.alive:
            return State(Phase.STARTING, "The engine does not run: it has ended, or has not begun.")
        if told.doing is None:
            return state
        phase = Phase.STARTING if told.doing.name == doing.BEGINNING else Phase.LOADING
        return State(phase, f"The engine is {told.doing.words()}.", doing=told.doing)


def _not_ready(error: EngineNotReady) -> State:
    phase = Phase(error.phase) if error.phase in set(Phase) - {Phase.READY} else Phase.UNREACHABLE
    return State(phase, error.message)


def _models(body: bytes) -> tuple[Model, ...]:
    try:
        listed = orjson.loads(body)["data"]
        return tuple(Model(str(item["id"]), _whole(item.get("max_model_len"))) for item in listed)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return ()


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
