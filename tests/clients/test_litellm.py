"""LiteLLM as a client, unmodified, through the service: as OpenAI's, as vLLM's and as Anthropic's provider."""

from typing import Any

import pytest

from tests.clients.conftest import ANSWER, QUESTION, Door

litellm: Any = pytest.importorskip("litellm")


@pytest.fixture(params=["openai", "hosted_vllm", "anthropic"])
def ask(request: pytest.FixtureRequest, door: Door) -> dict[str, Any]:
    return {
        "model": f"{request.param}/demo",
        "api_base": door.root if request.param == "anthropic" else door.v1,
        "api_key": door.key,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 200,
        "num_retries": 0,
    }


def test_a_whole_chat(ask: dict[str, Any]) -> None:
    assert litellm.completion(**ask).choices[0].message.content == ANSWER


def test_a_streamed_chat(ask: dict[str, Any]) -> None:
    chunks = litellm.completion(**ask, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER


async def test_an_asynchronous_streamed_chat(ask: dict[str, Any]) -> None:
    chunks = await litellm.acompletion(**ask, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in chunks]) == ANSWER


def test_a_wrong_key_is_an_authentication_error(ask: dict[str, Any]) -> None:
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**{**ask, "api_key": "wrong"})
