"""The engine's own count of tokens, read from the end of a reply: no stream is parsed for it."""

import re

from llm_service.records.exchange import Exchange

TAIL_BYTES = 4096  # `usage` stands last, or nearly so, in every reply that has it
_PROMPT = re.compile(rb'"(?:prompt|input)_tokens":\s*(\d+)')
_COMPLETION = re.compile(rb'"(?:completion|output)_tokens":\s*(\d+)')


def note_usage(exchange: Exchange, reply: bytes) -> None:
    """Note the counts at the end of a reply. A stream has them when its client asked for them."""
    start = reply.rfind(b'"usage":', -TAIL_BYTES)  # in a text of the model's, the quotes would be escaped
    if start < 0:
        return
    if found := _PROMPT.search(reply, start):
        exchange.prompt_tokens = int(found[1])
    if found := _COMPLETION.search(reply, start):
        exchange.completion_tokens = int(found[1])
