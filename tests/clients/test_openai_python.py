"""OpenAI's Python client, unmodified, through the service."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.clients.conftest import ANSWER, QUESTION, Door

ASK: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}


@pytest.fixture
def client(door: Door) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=door.v1, api_key=door.key, max_retries=0) as client:
        yield client


def test_a_whole_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**ASK)
    assert reply.choices[0].message.content == ANSWER
    assert reply.usage is not None
    assert reply.usage.completion_tokens > 0


def test_a_streamed_chat_with_its_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert chunks[-1].usage is not None


async def test_a_streamed_chat_of_the_asynchronous_client(door: Door) -> None:
    async with openai.AsyncOpenAI(base_url=door.v1, api_key=door.key, max_retries=0) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == ANSWER


def test_logprobs_and_fields_that_only_vllm_knows(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        **ASK, logprobs=True, top_logprobs=2, extra_body={"min_tokens": 1, "top_k": 5}
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content[0].top_logprobs) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion(client: openai.OpenAI, stream: bool) -> None:
    reply: Any = client.completions.create(model="demo", prompt=QUESTION, max_tokens=32, temperature=0, stream=stream)
    text = "".join(chunk.choices[0].text for chunk in reply) if stream else reply.choices[0].text
    assert text.strip()
    assert ANSWER.startswith(text.strip())


def test_a_whole_response(client: openai.OpenAI) -> None:
    reply = client.responses.create(model="demo", input=QUESTION, temperature=0, store=False)
    assert reply.output_text == ANSWER


def test_a_streamed_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model="demo", input=QUESTION, temperature=0, store=False) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert "".join(deltas) == ANSWER


def test_the_list_of_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]


def test_a_wrong_key_is_an_authentication_error(door: Door) -> None:
    with (
        openai.OpenAI(base_url=door.v1, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(**ASK)
    assert "key" in caught.value.message


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.chat.completions.create(**{**ASK, "model": "nobody"})


def test_a_bad_value_is_a_bad_request_with_the_engines_sentence(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(**{**ASK, "temperature": -1})


def test_what_the_model_cannot_do_is_the_engines_own_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(model="demo", input=QUESTION)
    assert caught.value.status_code < 500
