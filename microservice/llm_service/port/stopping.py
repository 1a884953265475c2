"""Stopping without losing a request: say so first, let running replies finish, and only then stop listening.

While it drains, /ready says 503 and a new request gets 503 at once, so that whatever stands in front asks elsewhere:
uvicorn by itself would close its port first, and nobody could ask whether it is ready.
"""

import asyncio
import math
import signal
import time
from dataclasses import dataclass
from types import FrameType

import uvicorn

from llm_service.errors import ShuttingDown


@dataclass
class Drain:
    """Whether the service is on its way out."""

    begun: bool = False

    def refuse_new(self) -> None:
        """Raise ShuttingDown if no new request is taken any more."""
        if self.begun:
            raise ShuttingDown("The service is stopping and takes no new requests.", phase="draining")


class Server(uvicorn.Server):
    """uvicorn's server, which drains on the first signal. A second Ctrl-C ends it at once."""

    def __init__(self, config: uvicorn.Config, drain: Drain, seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds
        self._stop_at = math.inf
        self._running: set[asyncio.Task[None]] = set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain."""
        if self._drain.begun:
            if sig == signal.SIGINT:
                self._stop_at = time.monotonic()
            return
        self._stop_at = time.monotonic() + self._seconds
        # What comes later is refused, and must not keep it waiting, however much of that there is.
        self._running = set(self.server_state.tasks)
        self._drain.begun = True

    async def on_tick(self, counter: int) -> bool:
        """Stop once nothing is running or the time is up; uvicorn calls this ten times a second."""
        left = self._stop_at - time.monotonic()
        if self._drain.begun and (left <= 0 or self._running.isdisjoint(self.server_state.tasks)):
            self.config.timeout_graceful_shutdown = max(0, math.ceil(left))
            self.should_exit = True
        return await super().on_tick(counter)
