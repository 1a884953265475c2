"""POST /v1/chat/completions as a raw ASGI endpoint: understand, relay, and say clearly what went wrong."""

import asyncio
import time

from starlette.types import Receive, Scope, Send

from llm_service import dialects
from llm_service.access import LONGEST_LOGGED, Exchange, exchange_of
from llm_service.asgi import Header, Writer, finish_or_leave, read_body
from llm_service.dialects import Call, Form
from llm_service.engines import Engine
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
from llm_service.pool import Pool
from llm_service.relay import Reply
from llm_service.replies import door_refusal, engine_message, opea_reply
from llm_service.settings import Settings, StreamFormat
from llm_service.stopping import Drain

_JSON = "application/json"
CLIENT_GONE = 499  # nginx's number for it; only the log sees it


class ChatEndpoint:
    """Serves chat requests in every form that `dialects` knows."""

    def __init__(self, settings: Settings, pool: Pool, drain: Drain) -> None:
        self._settings = settings
        self._pool = pool
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange = exchange_of(scope)
        writer = Writer(send)
        try:
            self._drain.refuse_new()
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
        give_up_at = self._pool.patience()
        limit_at: float | None = None
        lost = False
        while True:
            engine = await self._pool.pick(call.model or self._settings.model, give_up_at)
            limit_at = limit_at or asyncio.get_running_loop().time() + self._settings.first_byte_seconds
            try:
                with engine.at_work():
                    return await self._ask(engine, call, exchange, writer, limit_at)
            except EngineNotReady:
                if writer.started or time.monotonic() >= give_up_at:
                    raise
            except EngineLost as error:
                # Once: a request that no engine survives must not go round all of them.
                if writer.started or lost or not error.unanswered:
                    raise
                lost = True
            exchange.retries += 1

    def _default_model(self, engine: Engine) -> str:
        named = self._settings.engine_model
        listed = [model.name for model in engine.watch.models]
        return self._settings.model or (named if named in listed else listed[0])

    async def _ask(self, engine: Engine, call: Call, exchange: Exchange, writer: Writer, limit_at: float) -> None:
        name = call.model or self._default_model(engine)
        exchange.model = name[:LONGEST_LOGGED]
        if self._pool.several:
            exchange.engine = engine.url
        body = call.engine_body(name, engine.window(name))
        reply: Reply | None = None
        try:
            async with asyncio.timeout_at(limit_at) as deadline:
                headers = [(b"content-type", b"application/json"), (b"x-request-id", exchange.request_id.encode())]
                reply = await engine.connector.open(
                    "POST", "/v1/chat/completions", body, headers, fresh=exchange.retries > 0
                )
                if reply.status == 200 and call.stream:
                    await self._stream(call, reply, writer, deadline)
                else:
                    whole = b"".join([chunk async for chunk in reply.body])
                    deadline.reschedule(None)
                    if reply.status == 404 and call.needs_model:
                        engine.watch.doubt()
                    await self._whole(call, reply, whole, exchange, writer)
        except TimeoutError:
            silence = self._settings.idle_seconds if writer.started else self._settings.first_byte_seconds
            raise EngineTimeout(f"The engine sent nothing for {silence:g} s.") from None
        finally:
            if reply is not None:
                reply.close()

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
                    await writer.begin_stream(_content_type(reply), _notes(call))
                await writer.piece(ready)
            if writer.started:
                deadline.reschedule(loop.time() + self._settings.idle_seconds)
        deadline.reschedule(None)
        if not events.finished:
            lost = "The engine ended the stream before the answer was complete."
            raise EngineLost(lost, unanswered=events.none_yet, told=events.ends_in_error)
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
            await writer.whole(200, body, _JSON if call.form is Form.OPEA else _content_type(reply), _notes(call))
            return
        if refusal := door_refusal(reply.status, body):
            raise refusal
        message = engine_message(body)
        if reply.status == 401:
            raise EngineLost("The engine refuses this service's key; set VLLM_API_KEY.")
        if message is None:
            raise EngineLost(
                f"The engine answered with status {reply.status} and no reason.", unanswered=reply.status == 502
            )
        headers = [header for header in reply.headers if header[0] == b"retry-after"]
        if call.form is Form.OPEA:
            await writer.whole(reply.status, opea_sentence(message), _JSON, headers)
        else:
            await writer.whole(reply.status, body, _content_type(reply), headers)

    async def _fail(self, error: ServiceError, exchange: Exchange, writer: Writer) -> None:
        exchange.outcome = error.kind
        if writer.started:
            # Without [DONE]: clients take a stream that ends cleanly for a complete one.
            if not (isinstance(error, EngineLost) and error.told):
                await writer.piece(error_event(openai_body(error)))
            await writer.end()
            return
        headers = [(b"retry-after", str(error.retry_after).encode())] if error.retry_after else []
        if isinstance(error, ShuttingDown):
            headers.append((b"connection", b"close"))
        if exchange.form == Form.OPEA:
            await writer.whole(opea_status(error), opea_body(error), _JSON, headers)
        else:
            await writer.whole(error.status, openai_body(error), _JSON, headers)


def _notes(call: Call) -> list[Header]:
    return [(b"x-berth-warning", "; ".join(call.warnings).encode())] if call.warnings else []


def _content_type(reply: Reply) -> str:
    return next((value.decode("latin-1") for name, value in reply.headers if name == b"content-type"), _JSON)
