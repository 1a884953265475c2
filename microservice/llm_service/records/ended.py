"""Requests that have ended, written down together a moment later.

Right after a system call, a processor's caches are full of other things: there, writing down one request took a fifth
of all that a small reply costs. Of many one after another, no cost was seen any more (benchmarks/door).
"""

import asyncio
from collections.abc import Callable

from llm_service.records.exchange import Exchange, Observer

SETTLE_SECONDS = 0.05


class Ended:
    """Tells observers of requests that have ended. Belongs to one event loop."""

    def __init__(self, *observers: Observer, after: Callable[[], None] = lambda: None) -> None:
        """`after` is called each time they have been told of some."""
        self._observers = observers
        self._after = after
        self._waiting: list[Exchange] = []

    def add(self, exchange: Exchange) -> None:
        """Take a request. Must be called in the event loop."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(SETTLE_SECONDS, self.settle)
        self._waiting.append(exchange)

    def settle(self) -> None:
        """Tell of all that have ended: before somebody asks for what the observers know, and at the end."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for observe in self._observers:
            for exchange in waiting:
                observe(exchange)
        self._after()
