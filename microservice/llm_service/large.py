"""Replies that are no streams: held whole as long as they are small, else passed on as they come."""

import time

from llm_service.asgi import Header, Writer
from llm_service.engines.upstream import Reply
from llm_service.errors import EngineLost
from llm_service.records.usage import TAIL_BYTES, note_usage
from llm_service.watch import Watch

# Of one reply, until it goes on: as many as any chat has; embeddings of many texts, and audio, have more.
HELD_BYTES = 1024**2
# Of one reply that has to be rewritten, or is an error.
MOST_HELD_BYTES = 16 * 1024**2


async def held(reply: Reply, most_bytes: int) -> tuple[bytes, bool]:
    """Read a reply up to that size; return what came, and whether it is all. Raises ServiceError."""
    pieces: list[bytes] = []
    size = 0
    async for piece in reply.body:
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            return b"".join(pieces), False
    return b"".join(pieces), True


def too_large() -> EngineLost:
    """Return the error for a reply that cannot be held, and cannot go on as it comes."""
    return EngineLost(f"The engine's answer is larger than {MOST_HELD_BYTES // 1024**2} MiB.")


async def pass_on(begun: bytes, reply: Reply, headers: list[Header], writer: Writer, watch: Watch) -> None:
    """Pass on a reply that began so. One that breaks off ends without its end, which closes the connection."""
    exchange = writer.exchange
    watch.since = None
    watch.answers()
    exchange.first_byte_at = time.perf_counter()
    length = [header for header in reply.headers if header[0] == b"content-length"]
    writer.cut = True
    await writer.start(reply.status, [*headers, *length])
    tail = begun[-TAIL_BYTES:]
    await writer.piece(begun)
    watch.heard()
    async for piece in reply.body:
        watch.since = None  # a client that reads slowly must not look like an engine that is silent
        await writer.piece(piece)
        tail = (tail + piece)[-TAIL_BYTES:]
        watch.heard()
    watch.since = None
    note_usage(exchange, tail)
    await writer.end()
