"""The engine's own count of tokens, read from the end of a reply: no stream is parsed for it."""

import re

from llm_service.records.exchange import Exchange

TAIL_BYTES = 4096  # `usage` stands last, or nearly so, in every reply that has it
_PROMPT = (b'"prompt_tokens":', b'"input_tokens":')
_COMPLETION = (b'"completion_tokens":', b'"output_tokens":')
_NUMBER = re.compile(rb"\s*(\d+)")


def note_usage(exchange: Exchange, reply: bytes) -> None:
    """Note the counts at the end of a reply. A stream has them when its client asked for them."""
    start = reply.rfind(b'"usage":', -TAIL_BYTES)  # in a text of the model's, the quotes would be escaped
    if start < 0:
        return
    if (count := _count(reply, start, _PROMPT)) is not None:
        exchange.prompt_tokens = count
    if (count := _count(reply, start, _COMPLETION)) is not None:
        exchange.completion_tokens = count


def _count(reply: bytes, start: int, names: tuple[bytes, ...]) -> int | None:
    # No pattern for the names: looking for a plain text takes a tenth of the time.
    for name in names:
        at = reply.find(name, start)
        if at >= 0 and (found := _NUMBER.match(reply, at + len(name))):
            return int(found[1])
    return None
