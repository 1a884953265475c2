"""The engines behind this service, one or many: which of them gets a request.

The one with the fewest unfinished requests, of those that are ready and serve the model. When none is, a request waits
a moment for one, if there are several or a directory that may bring one.
"""

import asyncio
import contextlib
import logging
import time
from asyncio import FIRST_COMPLETED, sleep
from collections import Counter
from collections.abc import Iterable, Mapping

import orjson

from llm_service.config.settings import Settings
from llm_service.engines.address import Address
from llm_service.engines.engine import Engine
from llm_service.engines.health import PROBE_SECONDS, State
from llm_service.engines.listing import Listing
from llm_service.engines.relay import Phase
from llm_service.errors import EngineLost, EngineNotReady, ServiceError

POLL_SECONDS = 1.0  # how often the directory is read, and engines that failed are asked how they are
_MODELS_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = 0.1  # how often a request that waits looks whether an engine joined, or has rested
_STATE_SECONDS = 1.0  # one engine that hangs must not hold up the answer for all
_BEST_FIRST = (Phase.READY, Phase.LOADING, Phase.STARTING, Phase.DRAINING, Phase.FAILED, Phase.UNREACHABLE)

_log = logging.getLogger("llm_service.pool")


class Pool:
    """The engines. Nothing can be asked before `start`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listing = Listing(settings.directory, settings.engine_key) if settings.directory else None
        self._engines = {address: Engine(address, settings) for address in settings.engines}
        self._leaving: list[Engine] = []
        self.several = len(self._engines) != 1
        self._wait_seconds = settings.pool_wait_seconds if self.several else 0.0
        self._turn = 0
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow engines that come and go."""
        if self.several:
            await self._look()
            self._following = asyncio.ensure_future(self._follow())

    async def aclose(self) -> None:
        """Close every connection."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait((self._following,))
        for engine in (*self._engines.values(), *self._leaving):
            await engine.aclose()

    def patience(self) -> float:
        """Return the time, of the monotonic clock, until which a request that comes now waits for an engine."""
        return time.monotonic() + self._wait_seconds

    async def pick(self, model: str | None, give_up_at: float) -> Engine:
        """Return the engine that gets a request for this model; raise EngineNotReady when there is none in time."""
        while (engine := self._best(model)) is None:
            checks = [check for one in self._engines.values() if not one.watch.good and (check := one.watch.check())]
            left = give_up_at - time.monotonic()
            if left > 0:
                pause = min(left, _LOOK_AGAIN_SECONDS)
                await (asyncio.wait(checks, timeout=pause, return_when=FIRST_COMPLETED) if checks else sleep(pause))
                continue
            if checks and not self._wait_seconds:
                await asyncio.wait(checks)
            engine = self._best(model, rested=False)
            if engine is None:
                state = self._verdict(self._serving(model))
                raise EngineNotReady(state.detail, phase=state.phase)
            break
        self._turn += 1
        engine.turn = self._turn
        return engine

    def may_ask_again(self, error: EngineLost) -> bool:
        """Say whether a request that was lost may be sent again: nothing of a reply had come, and that may be no fault.

        It may be none when there are other engines, or when it was the connection that was too old.
        """
        return error.unanswered and (self.several or error.reused)

    def _serving(self, model: str | None) -> list[Engine]:
        """The engines that serve a model; all of them when none is known to, since they can best say so."""
        engines = list(self._engines.values())
        if model is None or len(engines) == 1:
            return engines
        return [engine for engine in engines if engine.serves(model)] or engines

    def _best(self, model: str | None, *, rested: bool = True) -> Engine | None:
        if not self.several:
            (only,) = self._engines.values()
            return only if only.watch.good and not (rested and only.resting) else None
        ready = [one for one in self._serving(model) if one.watch.good and not (rested and one.resting)]
        return min(ready, key=lambda one: (one.busy, one.turn), default=None)

    async def state(self) -> State:
        """Return the state of all together: ready when one is."""
        engines = list(self._engines.values())
        if checks := [check for engine in engines if (check := engine.watch.check())]:
            await asyncio.wait(checks, timeout=_STATE_SECONDS if self.several else None)
        return self._verdict(engines)

    def phases(self) -> Counter[Phase]:
        """Count the engines by what was last seen of them. Asks none of them."""
        return Counter(engine.watch.last.phase for engine in self._engines.values())

    def _verdict(self, engines: list[Engine]) -> State:
        if not engines and self._listing is not None:
            phase, detail = self._listing.verdict()
            return State(Phase(phase), detail, doing=self._listing.doing())
        states = [engine.watch.last for engine in engines]
        ready = [state for state in states if state.ready]
        if ready and self.several:
            models = {model.name: model for state in ready for model in state.models}
            return State(Phase.READY, f"{len(ready)} of {len(states)} engines answer requests.", tuple(models.values()))
        return min(states, key=lambda state: _BEST_FIRST.index(state.phase))

    async def models(self) -> tuple[int, str, bytes]:
        """Return the list of models: status, content type, body. One engine's own, or that of several together."""
        engines = list(self._engines.values())
        if len(engines) == 1:
            return await engines[0].relay.get("/v1/models", _MODELS_SECONDS)
        state = await self.state()
        if not state.ready:
            raise EngineNotReady(state.detail, phase=state.phase)
        asked = [engine.relay.get("/v1/models", PROBE_SECONDS) for engine in engines if engine.watch.good]
        return 200, "application/json", _together(await asyncio.gather(*asked, return_exceptions=True))

    async def _follow(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:
                _log.exception("fault while following the engines")
            await sleep(POLL_SECONDS)

    async def _look(self) -> None:
        if self._listing is not None:
            await self._adopt(await asyncio.to_thread(self._listing.read))
        for engine in self._engines.values():
            if not engine.watch.good:
                engine.watch.check()
        for engine in [one for one in self._leaving if not one.busy]:
            self._leaving.remove(engine)
            await engine.aclose()

    async def _adopt(self, listed: Mapping[Address, str | None]) -> None:
        """Begin with engines that are new; send no more requests to those that are gone, but let them finish."""
        for address in self._engines.keys() - listed.keys():
            self._leaving.append(self._engines.pop(address))
            _log.info("engine left", extra={"fields": {"engine": address.url}})
        for address in listed.keys() - self._engines.keys():
            engine = Engine(address, self._settings, listed[address])
            self._engines[address] = engine
            _log.info("engine joined", extra={"fields": {"engine": address.url, "model": listed[address]}})


def _together(replies: Iterable[tuple[int, str, bytes] | BaseException]) -> bytes:
    found: dict[str, object] = {}
    for reply in replies:
        if isinstance(reply, ServiceError):
            continue
        if isinstance(reply, BaseException):
            raise reply
        with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
            for item in orjson.loads(reply[2])["data"]:
                found.setdefault(item["id"], item)
    return orjson.dumps({"object": "list", "data": list(found.values())})
