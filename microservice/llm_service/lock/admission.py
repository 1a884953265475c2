"""Who runs now, who waits, and who is told to come again: bounded, and fair between keys.

So many requests run at once, so many more wait for a place, and the next one is told at once. A place that becomes
free goes to the keys in turn, not to the longest queue, and a full queue drops the last request of the key that has
most in it. So one client with a thousand requests delays the others by one request, not by a thousand.
"""

import asyncio
import math
from collections import OrderedDict
from time import monotonic

from llm_service.config.settings import Settings
from llm_service.errors import Overloaded, ServiceError, TooManyRequests
from llm_service.lock.keys import Key

_FULL = "The service has as many requests as it takes, and its queue is full."
_SLOW = "The service has as many requests as it takes, and none ended while this one waited."
_BUSY_RETRY_SECONDS = 1  # when one of a key's own requests ends, only its client knows

_Waiter = asyncio.Future[ServiceError | None]


class _Share:
    """What one key has of the service."""

    __slots__ = ("allowance", "counted_at", "held", "waiting")

    def __init__(self) -> None:
        self.held = 0  # requests that run or wait
        self.waiting: OrderedDict[_Waiter, None] = OrderedDict()  # the longest first
        self.allowance = math.inf  # requests that the rate still allows; inf: it is not counted
        self.counted_at = 0.0

    def refill(self, per_minute: float) -> None:
        """Refill the allowance, up to one minute's worth. Raises TooManyRequests when it holds less than one."""
        now = monotonic()
        refilled = self.allowance + (now - self.counted_at) * per_minute / 60
        self.allowance, self.counted_at = min(refilled, max(per_minute, 1.0)), now
        if self.allowance < 1:
            wait = math.ceil((1 - self.allowance) * 60 / per_minute)
            raise TooManyRequests(f"This key may send {per_minute:g} requests a minute.", wait)


class Admission:
    """The places of the service and the queue before them. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._places = settings.max_in_flight
        self._room = settings.max_queued
        self._patience = settings.queue_seconds
        self._key_places = settings.key_max_in_flight
        self._key_rate = settings.key_requests_per_minute
        self._shares: dict[bytes, _Share] = {}  # one for each key that was ever shown: never more than the file's
        self._turns: OrderedDict[_Share, None] = OrderedDict()  # those with waiting requests; the first is next
        self.in_flight = 0
        """How many requests have a place."""
        self.queued = 0
        """How many wait for one."""

    async def enter(self, key: Key | None) -> None:
        """Take a place, or wait for one; who enters must `leave`.

        Raises TooManyRequests for a limit of the key, Overloaded when the queue is full or the wait too long.
        A request that is cancelled while it waits leaves nothing behind.
        """
        share = self._share(key)
        if key is not None:
            self._check(key, share)
        if self.in_flight < self._places:
            self.in_flight += 1
            share.held += 1
            share.allowance -= 1
            return
        self._make_room(share)
        share.allowance -= 1
        await self._wait(share)

    def leave(self, key: Key | None) -> None:
        """Give the place back, or on to the next who waits."""
        self._share(key).held -= 1
        self._pass_on()

    def _share(self, key: Key | None) -> _Share:
        name = b"" if key is None else key.digest
        share = self._shares.get(name)
        if share is None:
            share = self._shares[name] = _Share()
        return share

    def _check(self, key: Key, share: _Share) -> None:
        places = key.max_in_flight or self._key_places
        if places is not None and share.held >= places:
            raise TooManyRequests(f"This key may have {places} requests at a time.", _BUSY_RETRY_SECONDS)
        rate = key.requests_per_minute or self._key_rate
        if rate is None:
            share.allowance = math.inf
        else:
            share.refill(rate)

    def _make_room(self, share: _Share) -> None:
        """See that one more may wait. Raises Overloaded when the queue is full and no key has more in it."""
        if self.queued < self._room:
            return
        longest = max(self._turns, key=lambda each: len(each.waiting), default=share)
        if len(longest.waiting) <= len(share.waiting) + 1:
            raise Overloaded(_FULL)
        last = next(reversed(longest.waiting))
        self._forget(longest, last)
        _tell(last, Overloaded(_FULL))

    async def _wait(self, share: _Share) -> None:
        loop = asyncio.get_running_loop()
        waiter: _Waiter = loop.create_future()
        share.waiting[waiter] = None
        share.held += 1
        self._turns.setdefault(share)
        self.queued += 1
        timer = loop.call_later(self._patience, self._give_up, share, waiter)
        try:
            refusal = await waiter
        except BaseException:
            if waiter in share.waiting:
                self._forget(share, waiter)
            elif not waiter.cancelled() and waiter.result() is None:  # cancelled a moment after it got a place
                share.held -= 1
                self._pass_on()
            raise
        finally:
            timer.cancel()
        if refusal is not None:
            raise refusal

    def _give_up(self, share: _Share, waiter: _Waiter) -> None:
        if waiter in share.waiting:
            self._forget(share, waiter)
            _tell(waiter, Overloaded(_SLOW))

    def _forget(self, share: _Share, waiter: _Waiter) -> None:
        """Take one that waits, and will not run, out of the queue."""
        self._unqueue(share, waiter)
        share.held -= 1

    def _unqueue(self, share: _Share, waiter: _Waiter) -> None:
        del share.waiting[waiter]
        if not share.waiting:
            del self._turns[share]
        self.queued -= 1

    def _pass_on(self) -> None:
        """Give a place that became free to the key whose turn it is, or keep it free."""
        while self._turns:
            share = next(iter(self._turns))
            waiter = next(iter(share.waiting))
            self._turns.move_to_end(share)
            if waiter.done():  # its client left, and it has not noticed yet
                self._forget(share, waiter)
                continue
            self._unqueue(share, waiter)
            waiter.set_result(None)
            return
        self.in_flight -= 1


def _tell(waiter: _Waiter, refusal: ServiceError) -> None:
    if not waiter.done():
        waiter.set_result(refusal)
