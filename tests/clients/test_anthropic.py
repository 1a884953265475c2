"""Anthropic's Python client, unmodified, through the service: its key comes as x-api-key."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.clients.conftest import ANSWER, QUESTION, Door

ASK: dict[str, Any] = {"model": "demo", "max_tokens": 200, "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture
def client(door: Door) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=door.root, api_key=door.key, max_retries=0) as client:
        yield client


def test_a_whole_message(client: anthropic.Anthropic) -> None:
    reply = client.messages.create(**ASK)
    assert [block.text for block in reply.content if block.type == "text"] == [ANSWER]
    assert reply.usage.output_tokens > 0


def test_a_streamed_message(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**ASK) as stream:
        assert "".join(stream.text_stream) == ANSWER
        assert stream.get_final_message().stop_reason == "end_turn"


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="demo", messages=ASK["messages"])
    assert counted.input_tokens > 0


def test_a_wrong_key_is_an_authentication_error(door: Door) -> None:
    with (
        anthropic.Anthropic(base_url=door.root, api_key="wrong", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError) as caught,
    ):
        client.messages.create(**ASK)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["type"] == "authentication_error"


def test_an_unknown_model_is_not_found(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**{**ASK, "model": "nobody"})
