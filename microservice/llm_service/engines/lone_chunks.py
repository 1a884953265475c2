"""Chunks of a stream that come one at a time, as tokens do: they go straight on, past the parser."""

import asyncio
from functools import cache
from typing import TYPE_CHECKING

from llm_service.engines.upstream import Straight

if TYPE_CHECKING:
    from llm_service.engines.wire import Wire


class LoneChunks(asyncio.Protocol):
    """Reads for a wire while chunks of a body come alone; what is none goes to the wire's parser.

    It costs less to be handed bytes than to be asked where to put them. But uvloop then reads up to 256,000 at once, so
    the wire reads for itself where there is more to come than the client takes.
    """

    __slots__ = ("_wire", "straight")

    def __init__(self, wire: "Wire", straight: Straight | None) -> None:
        self._wire = wire
        self.straight = straight
        """Where chunks go; None while the next byte is not the first one of a chunk."""

    def data_received(self, data: bytes) -> None:
        """Offer what looks like one whole chunk. To the parser it has then not happened."""
        if (
            (straight := self.straight) is None
            or (whole := _chunk_of(len(data))) is None
            or not data.startswith(whole[0])
            or not straight(data, whole[1])
        ):
            self._wire.parse(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the wire."""
        self._wire.connection_lost(exc)


@cache  # of as many sizes as one read may have
def _chunk_of(size: int) -> tuple[bytes, int] | None:
    """What a chunk of so many bytes in all begins with, as most servers write it, and the length of the piece in it."""
    for digits in range(1, 9):
        length = size - digits - 4  # and two line breaks
        if length > 0 and len(head := b"%x\r\n" % length) == digits + 2:
            return head, length
    return None  # a chunk of one byte less has a digit less
