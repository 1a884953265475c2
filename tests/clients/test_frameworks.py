"""LangChain, LlamaIndex and Instructor, unmodified, through the service."""

from typing import Any, Literal

import instructor
import openai
import pytest
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from tests.clients.conftest import ANSWER, QUESTION, Door


@pytest.fixture
def langchain(door: Door) -> ChatOpenAI:
    settings: dict[str, Any] = {"model": "demo", "base_url": door.v1, "api_key": door.key}
    return ChatOpenAI(**settings, temperature=0, max_retries=0)


def test_langchain_whole(langchain: ChatOpenAI) -> None:
    assert langchain.invoke(QUESTION).content == ANSWER


def test_langchain_streamed(langchain: ChatOpenAI) -> None:
    assert "".join(str(chunk.content) for chunk in langchain.stream(QUESTION)) == ANSWER


async def test_langchain_streamed_asynchronously(langchain: ChatOpenAI) -> None:
    assert "".join([str(chunk.content) async for chunk in langchain.astream(QUESTION)]) == ANSWER


@pytest.fixture
def llama_index(door: Door) -> OpenAILike:
    return OpenAILike(
        model="demo", api_base=door.v1, api_key=door.key, is_chat_model=True, temperature=0, max_retries=0
    )


def test_llama_index_whole(llama_index: OpenAILike) -> None:
    assert llama_index.chat([ChatMessage(role="user", content=QUESTION)]).message.content == ANSWER


def test_llama_index_streamed(llama_index: OpenAILike) -> None:
    chunks = llama_index.stream_chat([ChatMessage(role="user", content=QUESTION)])
    assert "".join(chunk.delta or "" for chunk in chunks) == ANSWER


class Verdict(BaseModel):
    """What Instructor is to make of an answer; an engine that is held to it can say nothing else."""

    topic: Literal["learning", "serving"]


@pytest.fixture
def structured(door: Door) -> Any:
    client = openai.OpenAI(base_url=door.v1, api_key=door.key, max_retries=0)
    return instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)


ASK: dict[str, Any] = {
    "model": "demo",
    "messages": [{"role": "user", "content": QUESTION}],
    "max_tokens": 64,
    "temperature": 0,
    "max_retries": 0,
}


def test_instructor_whole(structured: Any) -> None:
    assert structured.chat.completions.create(**ASK, response_model=Verdict).topic in ("learning", "serving")


def test_instructor_streamed(structured: Any) -> None:
    parts = list(structured.chat.completions.create_partial(**ASK, response_model=Verdict))
    assert parts[-1].topic in ("learning", "serving")
