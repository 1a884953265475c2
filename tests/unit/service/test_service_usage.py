"""The engine's count of tokens, found at the end of replies of every interface, whole or streamed."""

import pytest

from llm_service.records.exchange import Exchange
from llm_service.records.usage import note_usage

CHAT = b'{"choices":[{"message":{"content":"a"}}],"usage":{"prompt_tokens":3,"total_tokens":8,"completion_tokens":5}}'
LAST_CHUNK = (
    b'data: {"choices":[],"usage":{"prompt_tokens": 3,"total_tokens":8,"completion_tokens": 5}}\n\ndata: [DONE]\n\n'
)
MESSAGE = b'{"content":[],"usage":{"input_tokens":3,"output_tokens":5}}'
DELTA = (
    b'event: message_delta\ndata: {"usage":{"input_tokens":3,"output_tokens":5}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
RESPONSE = (
    b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":3,"output_tokens":5},"user":null}}\n\n'
)
DETAILS = b'{"usage":{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":1},"completion_tokens":5}}'
QUOTED = rb'{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":99}"}}]}'


def counted(reply: bytes) -> tuple[int | None, int | None]:
    exchange = Exchange("id", "POST", "/")
    note_usage(exchange, reply)
    return exchange.prompt_tokens, exchange.completion_tokens


@pytest.mark.parametrize("reply", [CHAT, LAST_CHUNK, MESSAGE, DELTA, RESPONSE, DETAILS])
def test_tokens_are_counted_as_the_engine_says(reply: bytes) -> None:
    assert counted(reply) == (3, 5)
    assert counted(b"data: {}\n\n" * 1000 + reply) == (3, 5)


@pytest.mark.parametrize("reply", [b"", b"{}", QUOTED, b'{"usage":null}', b'{"usage":{"prompt_tokens":null}}'])
def test_without_a_count_there_is_none(reply: bytes) -> None:
    assert counted(reply) == (None, None)


def test_embeddings_have_no_completion() -> None:
    assert counted(b'{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3,"completion_tokens":0}}') == (3, 0)
