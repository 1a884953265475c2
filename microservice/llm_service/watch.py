"""Watches over one request: a client that leaves, an engine that is silent, a request that never ends.

The work runs in the task of the request and is cancelled there, and one timer looks after all requests, so that one
costs neither a timer nor a further task. Only after NOTICE_SECONDS does a second task begin to wait for the client to
leave.
"""

import asyncio
from math import inf
from typing import Any

from starlette.types import Receive

from llm_service.asgi import Header, Writer
from llm_service.config.settings import Settings
from llm_service.errors import EngineTimeout, RequestTooLong

NOTICE_SECONDS = 0.05  # a client that leaves earlier is noticed now; most small replies are over by then


class ClientGone(Exception):
    """The client closed its connection."""


class Watches:
    """All requests of one event loop that are watched."""

    def __init__(self) -> None:
        self._open: set[Watch] = set()
        self._sweeping = False

    def add(self, watch: "Watch") -> None:
        """Look after a request until it is dropped."""
        self._open.add(watch)
        if not self._sweeping:
            self._sweeping = True
            self._sweep(watch.loop)

    def drop(self, watch: "Watch") -> None:
        """Look after it no longer."""
        self._open.discard(watch)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for watch in [one for one in self._open if one.look_at <= now]:
            watch.look(now)
        self._sweeping = bool(self._open)
        if self._sweeping:
            loop.call_later(NOTICE_SECONDS, self._sweep, loop)


class Watch:
    """Cancels the task that made it, and can then say why. Must be closed.

    `since` is when the engine was last heard of, in seconds of the event loop's clock. It is None while nobody waits
    for the engine: before it is asked, and while the client reads too slowly. `answered` is whether a byte of the
    engine's went to the client.
    """

    since: float | None = None
    answered = False
    # Of the class until something happens, since most requests end before.
    _total_at = inf
    _head: list[Header] | None = None
    _commented_at = -inf
    _speaking: asyncio.Task[None] | None = None
    _leaving: asyncio.Task[None] | None = None
    _ended = False
    _why: Exception | None = None

    def __init__(self, receive: Receive, writer: Writer, settings: Settings, watches: Watches) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[Any] = task
        self.loop = task.get_loop()
        self._receive = receive
        self._writer = writer
        self._settings = settings
        self._limit = settings.first_byte_seconds
        now = self.loop.time()
        if settings.total_seconds is not None:
            self._total_at = now + settings.total_seconds
        self.look_at = now + NOTICE_SECONDS
        """When there is something to be done, by the loop's clock."""
        self._watches = watches
        watches.add(self)

    def begin(self, head: list[Header] | None) -> None:
        """Take note that the engine is asked. A stream is sent comments, and its `head` before the first of them."""
        if self.since is None:
            self.since = self.loop.time()
        self._head = head

    def answers(self) -> None:
        """Take note that the first byte has come: from now on the limit is that on silence between two."""
        self.answered = True
        self._limit = self._settings.idle_seconds
        if self._leaving is not None:  # else the first look is still to come, and soon
            self.look(self.loop.time())

    def heard(self) -> None:
        """Take note that the engine has sent something, and that all of it went to the client."""
        self.since = self.loop.time()

    def explain(self) -> None:
        """Raise ClientGone or EngineTimeout when the cancellation was this watch's doing."""
        why, self._why = self._why, None
        if why is None:
            return
        self._task.uncancel()
        try:
            raise why from None
        finally:
            del why  # it holds this frame

    def close(self) -> None:
        """Watch no longer, and hold nothing that holds this watch: else each stream is left to Python's collector."""
        self._watches.drop(self)
        for task in (self._leaving, self._speaking):
            if task is not None:
                task.cancel()
        self._leaving = self._speaking = None

    def look(self, now: float) -> None:
        """Do what is due, and settle when to look again."""
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._leave())
        silent_at = (now if self.since is None else self.since) + self._limit
        if now >= self._total_at:
            self._end(RequestTooLong(f"The request took longer than {self._settings.total_seconds:g} s."))
        elif now >= silent_at:
            self._end(EngineTimeout(f"The engine sent nothing for {self._limit:g} s."))
        else:
            self.look_at = min(silent_at, self._total_at, self._speak(now))

    def _speak(self, now: float) -> float:
        """Send a comment if it is time to; return when that may be so again."""
        pause = self._settings.keep_alive_seconds or inf
        if self._head is None or self.since is None:
            return now + pause
        due_at = max(self.since, self._commented_at) + pause
        if now < due_at:
            return due_at
        if self._speaking is None or self._speaking.done():
            self._speaking = asyncio.ensure_future(self._comment(self._head))
        self._commented_at = now
        return now + pause

    async def _comment(self, head: list[Header]) -> None:
        if not self._writer.started:
            await self._writer.start(200, head)
        await self._writer.comment()

    async def _leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end(ClientGone())

    def _end(self, why: Exception) -> None:
        if not self._ended:
            self._ended = True
            self._why = why
            self._task.cancel()
