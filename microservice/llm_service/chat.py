"""POST /v1/chat/completions as a raw ASGI endpoint: understand, relay, and say clearly what went wrong."""

import asyncio
from collections.abc import Sequence

from starlette.types import Receive, Scope, Send

from llm_service import dialects
from llm_service.access import LONGEST_LOGGED, Exchange, exchange_of
from llm_service.asgi import Header, Writer, finish_or_leave, read_body
from llm_service.dialects import Call, Form
from llm_service.errors import (
    EngineLost,
    EngineNotReady,
    EngineTimeout,
    ServiceError,
    ShuttingDown,
    opea_body,
    opea_sentence,
    opea_status,
    openai_body,
)
from llm_service.events import Literals, WholeEvents, error_event
from llm_service.health import EngineWatch, Model
from llm_service.relay import Connector, Reply
from llm_service.replies import engine_message, opea_reply
from llm_service.settings import Settings, StreamFormat

_JSON = "application/json"
CLIENT_GONE = 499  # nginx's number for it; only the log sees it


class ChatEndpoint:
    """Serves chat requests in every form that `dialects` knows."""

    def __init__(self, settings: Settings, connector: Connector, watch: EngineWatch) -> None:
        self._settings = settings
        self._connector = connector
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange = exchange_of(scope)
        writer = Writer(send)
        try:
            raw = await read_body(receive)
            finished = raw is not None and await finish_or_leave(self._serve(raw, exchange, writer), receive)
            if not finished:
                exchange.outcome = "client gone"
                exchange.status = exchange.status or CLIENT_GONE
        except ServiceError as error:
            await self._fail(error, exchange, writer)
        except asyncio.CancelledError:
            await self._fail(ShuttingDown("The service is stopping."), exchange, writer)
            raise

    async def _serve(self, raw: bytes, exchange: Exchange, writer: Writer) -> None:
        fields = dialects.read(raw)
        form = dialects.form_of(fields)
        exchange.form = form
        call = dialects.parse(form, fields, raw, disable_streaming=self._settings.disable_streaming)
        exchange.stream = call.stream
        models = await self._watch.ready_models()
        name = call.model or self._default_model(models)
        exchange.model = name[:LONGEST_LOGGED]
        window = next((model.window for model in models if model.name == name), None)
        body = call.engine_body(name, window)
        try:
            await self._relay(call, body, exchange, writer)
        except (EngineNotReady, EngineLost, EngineTimeout):
            self._watch.doubt()
            raise

    def _default_model(self, models: Sequence[Model]) -> str:
        named = self._settings.engine_model
        listed = [model.name for model in models]
        return self._settings.model or (named if named in listed else listed[0])

    async def _relay(self, call: Call, body: bytes, exchange: Exchange, writer: Writer) -> None:
        limit = self._settings.first_byte_seconds
        reply: Reply | None = None
        try:
            async with asyncio.timeout(limit) as deadline:
                reply = await self._connector.open(body, exchange.request_id)
                if reply.status == 200 and call.stream:
                    await self._stream(call, reply, writer, deadline)
                else:
                    whole = b"".join([chunk async for chunk in reply.body])
                    deadline.reschedule(None)
                    await self._whole(call, reply, whole, exchange, writer)
        except TimeoutError:
            silence = self._settings.idle_seconds if writer.started else limit
            raise EngineTimeout(f"The engine sent nothing for {silence:g} s.") from None
        finally:
            if reply is not None:
                await reply.close()

    async def _stream(self, call: Call, reply: Reply, writer: Writer, deadline: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        events = WholeEvents()
        literals = self._literals(call)
        async for chunk in reply.body:
            ready = events.feed(chunk)
            if literals is not None:
                ready = literals.feed(ready)
            if ready:
                # A client that reads slowly must not look like an engine that is silent.
                deadline.reschedule(None)
                if not writer.started:
                    await writer.begin_stream(reply.content_type, _notes(call))
                await writer.piece(ready)
            if writer.started:
                deadline.reschedule(loop.time() + self._settings.idle_seconds)
        deadline.reschedule(None)
        if not events.finished:
            raise EngineLost("The engine ended the stream before the answer was complete.")
        await writer.end()

    def _literals(self, call: Call) -> Literals | None:
        if call.form is Form.OPENAI or self._settings.stream_format is StreamFormat.OPENAI:
            return None
        as_bytes = self._settings.stream_format is StreamFormat.BYTES_REPR
        return Literals(as_bytes=as_bytes, data=call.echo.get("data"))

    async def _whole(self, call: Call, reply: Reply, body: bytes, exchange: Exchange, writer: Writer) -> None:
        if reply.status == 200:
            if call.form is Form.OPEA:
                body = opea_reply(call, body)
            await writer.whole(200, body, _JSON if call.form is Form.OPEA else reply.content_type, _notes(call))
            return
        exchange.outcome = "engine error"
        if reply.status == 404 and call.needs_model:
            self._watch.doubt()
        message = engine_message(body)
        if reply.status == 401:
            raise EngineLost("The engine refuses this service's key; set VLLM_API_KEY.")
        if message is None:
            raise EngineLost(f"The engine answered with status {reply.status} and no reason.")
        headers = [(b"retry-after", reply.retry_after.encode())] if reply.retry_after else []
        if call.form is Form.OPEA:
            await writer.whole(reply.status, opea_sentence(message), _JSON, headers)
        else:
            await writer.whole(reply.status, body, reply.content_type, headers)

    async def _fail(self, error: ServiceError, exchange: Exchange, writer: Writer) -> None:
        exchange.outcome = error.kind
        if writer.started:
            # Without [DONE]: clients take a stream that ends cleanly for a complete one.
            await writer.piece(error_event(openai_body(error)))
            await writer.end()
            return
        headers = [(b"retry-after", str(error.retry_after).encode())] if error.retry_after else []
        if exchange.form == Form.OPEA:
            await writer.whole(opea_status(error), opea_body(error), _JSON, headers)
        else:
            await writer.whole(error.status, openai_body(error), _JSON, headers)


def _notes(call: Call) -> list[Header]:
    return [(b"x-berth-warning", "; ".join(call.warnings).encode())] if call.warnings else []
