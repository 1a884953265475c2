"""Chat requests carried by langchain-openai's chat class; what is no chat request goes the usual way.

It speaks for installations that already steer models through LangChain. It cannot carry several choices, tools or log
probabilities, and says so.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Self
from uuid import uuid4

import httpx2  # what openai's client speaks HTTP with
import openai
import orjson
from langchain_core.messages import AIMessage, convert_to_messages
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from llm_service.engines.address import Address, goes_direct
from llm_service.engines.relay import KEEP_ALIVE_SECONDS, Header, Phase, Relay, Reply, passed_on
from llm_service.errors import BadRequest, EngineLost, EngineNotReady, EngineTimeout, ServiceError

_NOT_CARRIED = ("n", "tools", "logprobs")
_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


class LangChainConnector:
    """Carries a chat request through ChatOpenAI and writes OpenAI's JSON from what comes back."""

    def __init__(self, address: Address, connect_seconds: float, relay: Relay) -> None:
        self._relay = relay
        limits = httpx2.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE_SECONDS)
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=address.socket, limits=limits) if address.socket else None,
            trust_env=not goes_direct(address.base),
            timeout=httpx2.Timeout(None, connect=connect_seconds),
            limits=limits,
        )
        self._chat = ChatOpenAI(
            model="named-by-each-request",
            base_url=f"{address.base}/v1",
            api_key=SecretStr(address.key or "none"),
            http_async_client=self._client,
            max_retries=0,
            use_responses_api=False,
            stream_usage=False,
            stream_chunk_timeout=None,
        )

    async def open(
        self, method: str, path: str, body: bytes | None, headers: list[Header], *, fresh: bool = False
    ) -> Reply:
        """Send a request; return once the engine has answered or begun to. For chat, `fresh` makes no difference."""
        if body is None or (method, path) != ("POST", "/v1/chat/completions"):
            return await self._relay.open(method, path, body, headers, fresh=fresh)
        fields: dict[str, Any] = orjson.loads(body)
        for name in _NOT_CARRIED:
            if fields.get(name) not in (None, False, 1, []) or fields.get(name) is True:
                raise BadRequest(f"{name} is not carried by the langchain connector.", param=name)
        try:
            messages = convert_to_messages(fields.pop("messages"))
        except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError):
            raise BadRequest("The langchain connector cannot read these messages.", param="messages") from None
        stream, model = bool(fields.pop("stream", False)), fields.pop("model")
        # Everything else goes as extra body: ChatOpenAI would rename or drop some of it.
        call = {"model": model, "extra_body": fields, "extra_headers": _named(headers)}
        shape = _Shape(model)
        try:
            if not stream:
                whole = shape.completion(await self._chat.ainvoke(messages, **call))
                return _reply(_JSON, _once(whole))
            pieces = self._chat.astream(messages, **call)
            first = await anext(pieces, None)
        except openai.APIStatusError as error:
            said = _Body(_once(error.response.content))
            # httpx has decoded it, so its length and encoding may be others.
            told = [one for one in passed_on(error.response.headers.raw) if not one[0].startswith(b"content-")]
            return Reply(error.status_code, [*told, _JSON], said, said.close)
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            raise _translated(error) from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise EngineLost("The engine's answer is no chat completion.") from error
        return _reply(_EVENTS, _events(shape, first, pieces))

    async def aclose(self) -> None:
        """Close every connection to the engine."""
        await self._client.aclose()


def _reply(content_type: Header, pieces: AsyncIterator[bytes]) -> Reply:
    body = _Body(pieces)
    return Reply(200, [content_type], body, body.close)


def _named(headers: list[Header]) -> dict[str, str]:
    named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    named.pop("content-type", None)  # the client's own body is not what is sent
    return named


class _Body:
    """Pieces that a task of its own makes, so that a wait for one may be cancelled, and `close` need not wait."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._made: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(1)
        self._making = asyncio.ensure_future(self._make(pieces))

    async def _make(self, pieces: AsyncIterator[bytes]) -> None:
        try:
            async for piece in pieces:
                await self._made.put(piece)
            await self._made.put(None)
        except Exception as error:
            await self._made.put(error)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._made.get()
        if piece is None:
            raise StopAsyncIteration
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        """Ask for no more."""
        self._making.cancel()


async def _once(body: bytes) -> AsyncGenerator[bytes]:
    yield body


async def _events(shape: "_Shape", first: AIMessage | None, rest: AsyncIterator[AIMessage]) -> AsyncGenerator[bytes]:
    try:
        if first is not None:
            yield shape.chunk(first)
        async for piece in rest:
            yield shape.chunk(piece)
    except (openai.OpenAIError, httpx2.HTTPError) as error:
        raise _translated(error) from error
    finally:
        if isinstance(rest, AsyncGenerator):
            await rest.aclose()
    yield b"data: [DONE]\n\n"


def _translated(error: Exception) -> ServiceError:
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(cause, httpx2.ConnectError):
        return EngineNotReady("The engine is starting: nothing listens at its address yet.", phase=Phase.STARTING)
    if isinstance(cause, httpx2.ConnectTimeout):
        return EngineNotReady("The engine is unreachable: nothing answers at its address.", phase=Phase.UNREACHABLE)
    if isinstance(error, openai.APITimeoutError) or isinstance(cause, httpx2.TimeoutException):
        return EngineTimeout("The engine took too long to answer.")
    if type(error) is openai.APIError:
        return EngineLost(error.message)
    return EngineLost("The engine closed the connection before its answer was complete.")


class _Shape:
    """OpenAI's JSON around LangChain's messages, with one id for all of a reply."""

    def __init__(self, model: str) -> None:
        self._frame = {"id": f"chatcmpl-{uuid4().hex}", "model": model}

    def completion(self, message: AIMessage) -> bytes:
        facts = message.response_metadata
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": message.text},
            "finish_reason": facts.get("finish_reason"),
        }
        usage = facts.get("token_usage")
        return orjson.dumps({**self._frame, "object": "chat.completion", "choices": [choice], "usage": usage})

    def chunk(self, piece: AIMessage) -> bytes:
        choices = [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": piece.text},
                "finish_reason": piece.response_metadata.get("finish_reason"),
            }
        ]
        frame: dict[str, Any] = {**self._frame, "object": "chat.completion.chunk", "choices": choices}
        if piece.usage_metadata is not None:
            used = piece.usage_metadata
            frame["usage"] = {
                "prompt_tokens": used["input_tokens"],
                "completion_tokens": used["output_tokens"],
                "total_tokens": used["total_tokens"],
            }
        return b"data: " + orjson.dumps(frame) + b"\n\n"
