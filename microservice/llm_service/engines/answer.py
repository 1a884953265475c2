"""The answer to one request, as it comes over a connection to an engine: filled from one side, read from the other."""

import asyncio
from typing import TYPE_CHECKING, Self

from llm_service.engines.upstream import Header, Straight, Take, broken_off
from llm_service.errors import ServiceError

if TYPE_CHECKING:
    from llm_service.engines.wire import Wire


class Answer:
    """What comes back for one request: its status and headers, then its body as an asynchronous iterator."""

    __slots__ = (
        "_begun",
        "_failure",
        "_loop",
        "_pieces",
        "_take",
        "_waiter",
        "_wire",
        "headers",
        "heard",
        "held",
        "reused",
        "status",
    )

    def __init__(self, wire: "Wire", *, reused: bool) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.reused = reused
        self.heard = False
        """Whether a byte has come."""
        self.held = 0
        """How many bytes of the body nobody has taken yet."""
        self._wire: Wire | None = wire  # until it is complete, or lost
        self._pieces: list[bytes] = []
        self._begun = False
        self._failure: ServiceError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._take: Take | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # looked up once: before Python 3.12 that is a system call

    async def head(self) -> None:
        """Wait until the status and the headers are there. Raises ServiceError."""
        while not self.status:
            await self._more()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._wire is None and self._failure is None:
                raise StopAsyncIteration
            await self._more()
        return self._taken()

    def _taken(self) -> bytes:
        pieces, self._pieces, self.held = self._pieces, [], 0
        if self._wire is not None:
            self._wire.go_on()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def pour(self, take: Take, straight: Straight | None = None) -> bool:
        """As `Reply` has it. Both are called as soon as bytes are there, without waking a task."""
        while True:
            if self._pieces:
                if not take(self._taken()):
                    return False
            elif self._wire is None and self._failure is None:
                return True
            else:
                self._take = take
                self._go_straight(straight)
                try:
                    await self._more()
                finally:
                    stopped = self._take is None
                    self._wait()
                if stopped:
                    return False

    async def _more(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._loop = self._loop or asyncio.get_running_loop()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def add(self, piece: bytes) -> None:
        """Take note of a piece of the body."""
        self._begun = True
        self._pieces.append(piece)
        self.held += len(piece)

    def wake(self) -> None:
        """Let whoever waits look again, or hand over what is there."""
        if self._take is not None and self._pieces and self._poured(self._take) and self._wire is not None:
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _poured(self, take: Take) -> bool:
        """Hand over what is there; return whether the next piece may come like this."""
        try:
            if take(self._taken()):
                return True
        except Exception as error:
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(error)
        self._wait()
        return False

    def _wait(self) -> None:
        self._take = None
        self._go_straight(None)

    def _go_straight(self, straight: Straight | None) -> None:
        if self._wire is not None:
            self._wire.go_straight(straight)

    def end(self) -> None:
        """Take note that it is complete."""
        self._wire = None
        self.wake()

    def fail(self, failure: ServiceError | None = None) -> None:
        """Take note that no more will come; without a failure, because the connection broke off."""
        self._wire = None
        self._failure = failure or broken_off(unanswered=not self._begun, reused=self.reused and not self.heard)
        self.wake()

    def close(self) -> None:
        """End the generation if the answer is not complete. A connection that serves others by now is left alone."""
        if self._wire is not None:
            self._wire.abort()
            self.fail()
