"""What the engine is doing, from its own signals: connections, /health and /v1/models. It never generates text."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import orjson

from llm_service.errors import EngineNotReady, ServiceError
from llm_service.relay import Phase, Relay

CACHE_SECONDS = 1.5
PROBE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Model:
    """One model that the engine lists; `window` is its context in tokens, when stated."""

    name: str
    window: int | None


@dataclass(frozen=True, slots=True)
class State:
    """The engine's phase, one sentence about it, and what it serves."""

    phase: Phase
    detail: str
    models: tuple[Model, ...] = field(default=())

    @property
    def ready(self) -> bool:
        """Whether a chat request would be answered."""
        return self.phase is Phase.READY

    def public(self) -> dict[str, Any]:
        """Return the state for /ready and /v1/health_check."""
        return {"state": self.phase, "detail": self.detail, "models": [model.name for model in self.models]}


class EngineWatch:
    """Asks the engine for its state at most once per CACHE_SECONDS, however many clients want to know."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._state = State(Phase.STARTING, "The engine has not been asked yet.")
        self._asked_at = float("-inf")
        self._one_at_a_time = asyncio.Lock()
        self._good = False

    async def state(self) -> State:
        """Return the engine's state, at most CACHE_SECONDS old."""
        async with self._one_at_a_time:
            if time.monotonic() - self._asked_at >= CACHE_SECONDS:
                self._state = await self._probe()
                self._good = self._state.ready
                self._asked_at = time.monotonic()
            return self._state

    async def ready_models(self) -> tuple[Model, ...]:
        """Return the engine's models; raise EngineNotReady with the phase while there is no engine to ask.

        Once the engine was seen ready this costs nothing, until `doubt` says that it may have gone.
        """
        if self._good:
            return self._state.models
        state = await self.state()
        if not state.ready:
            raise EngineNotReady(state.detail, phase=state.phase)
        return state.models

    def doubt(self) -> None:
        """Take note that a request failed in a way that says the engine, or its model, is no longer there."""
        self._good = False
        self._asked_at = float("-inf")

    async def _probe(self) -> State:
        try:
            status, _, _ = await self._relay.get("/health", PROBE_SECONDS)
            if status != 200:
                return State(Phase.FAILED, f"The engine has failed: it says that it is not healthy (status {status}).")
            status, _, body = await self._relay.get("/v1/models", PROBE_SECONDS)
        except EngineNotReady as error:
            return State(Phase(error.phase or Phase.UNREACHABLE), error.message)
        except ServiceError:
            return State(Phase.LOADING, "The engine is loading: it accepts connections but does not answer yet.")
        if status == 401:
            return State(Phase.FAILED, "The engine refuses this service's key; set VLLM_API_KEY.")
        models = _models(body) if status == 200 else ()
        if not models:
            return State(Phase.LOADING, "The engine is loading: it answers but lists no model yet.")
        return State(Phase.READY, "The engine answers requests.", models)


def _models(body: bytes) -> tuple[Model, ...]:
    try:
        listed = orjson.loads(body)["data"]
        return tuple(Model(str(item["id"]), _whole(item.get("max_model_len"))) for item in listed)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return ()


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
