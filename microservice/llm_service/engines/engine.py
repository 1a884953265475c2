"""One engine of those that this service may ask: its connections, its state, and how much it has to do."""

import time
from types import TracebackType

from llm_service.config.settings import Settings
from llm_service.connectors import build_connector
from llm_service.engines.address import Address
from llm_service.engines.health import EngineWatch
from llm_service.engines.relay import Relay
from llm_service.errors import EngineLost, EngineNotReady, EngineTimeout

# After the second failure in a row an engine rests, and longer each time: others get its requests meanwhile.
_FIRST_REST_SECONDS = 0.25
LONGEST_REST_SECONDS = 8.0


_FAILURES = (EngineNotReady, EngineLost, EngineTimeout)


class Engine:
    """One engine, and by `with engine:` its work on one request."""

    def __init__(self, address: Address, settings: Settings, model: str | None = None) -> None:
        self.url = address.url
        self.relay = Relay(address, settings.connect_seconds)
        self.connector = build_connector(settings, self.relay, address)
        # One file tells of one engine.
        self.watch = EngineWatch(self.relay, settings.phase_file if len(settings.engines) == 1 else None)
        self.busy = 0
        """How many requests it has that are not yet finished."""
        self.turn = 0
        """When it last got a request, as a number that grows."""
        self._model = model
        self._failures = 0
        self._rests_until = 0.0

    @property
    def resting(self) -> bool:
        """Whether it failed several times in a row, so that others come first."""
        return self._failures > 1 and time.monotonic() < self._rests_until

    def serves(self, model: str) -> bool:
        """Say whether it lists a model, or did when it was last asked; before that, what its file says counts."""
        return any(one.name == model for one in self.watch.models) if self.watch.models else model == self._model

    def window(self, model: str) -> int | None:
        """Return the context of a model in tokens, if it says one."""
        return next((one.window for one in self.watch.models if one.name == model), None)

    def __enter__(self) -> None:
        """Count a request while it runs."""
        self.busy += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take note of how it ended."""
        self.busy -= 1
        if error is None:
            self._failures = 0
        # A connection that was too old says nothing about the engine; a new one will.
        elif isinstance(error, _FAILURES) and not (isinstance(error, EngineLost) and error.reused):
            self.failed()

    def failed(self) -> None:
        """Take note of a failure: no more requests go there before it was asked how it is."""
        if not self.watch.good:
            return  # of many requests that fail at once, the first one counts
        self.watch.doubt()
        self._failures += 1
        if self._failures > 1:
            # Bounded before it is a float: one that failed a thousand times in a row would be too much for one.
            rest = min(_FIRST_REST_SECONDS * 2 ** min(self._failures - 2, 16), LONGEST_REST_SECONDS)
            self._rests_until = time.monotonic() + rest

    async def aclose(self) -> None:
        """Close every connection."""
        await self.watch.stop()
        await self.connector.aclose()
        await self.relay.aclose()
