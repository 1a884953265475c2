"""What is relayed: understand a request as far as needed, have an engine answer it, and say clearly what went wrong.

Bytes in, bytes out. Only chat requests of older dialects are rewritten; of a stream no event is ever parsed.
"""

import asyncio
import time

from starlette.types import Receive, Scope

from llm_service.asgi import Header, Writer
from llm_service.config.settings import Settings
from llm_service.engines.engine import Engine
from llm_service.engines.pool import Pool
from llm_service.engines.relay import Reply
from llm_service.errors import (
    EngineLost,
    EngineNotReady,
    NotFound,
    ServiceError,
    ShuttingDown,
    error_headers,
    opea_sentence,
    shaped,
)
from llm_service.forms.events import error_event
from llm_service.forms.replies import door_refusal, engine_message, stream_shape, whole_reply
from llm_service.large import HELD_BYTES, MOST_HELD_BYTES, held, pass_on, too_large
from llm_service.lock.admission import Admission
from llm_service.lock.keys import Key
from llm_service.passing import Passing
from llm_service.paths import Route
from llm_service.port.limits import read_body
from llm_service.port.stopping import Drain
from llm_service.records.exchange import CLIENT_GONE
from llm_service.records.usage import note_usage
from llm_service.watch import ClientGone, Watch, Watches
from llm_service.work import Work, understood

_JSON = (b"content-type", b"application/json")
_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
_UNHELD = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))  # no cache and no proxy may hold it back
# Ours, or about a client that the engine never saw.
_NOT_PASSED_ON = frozenset(
    (
        *(b"content-length", b"x-request-id", b"set-cookie", b"cache-control", b"www-authenticate", b"location"),
        *(b"access-control-allow-origin", b"access-control-allow-credentials", b"access-control-expose-headers"),
    )
)


class Forward:
    """Serves requests on the paths that lead to the engine."""

    def __init__(self, settings: Settings, pool: Pool, drain: Drain, admission: Admission) -> None:
        self._settings = settings
        self._pool = pool
        self._drain = drain
        self._admission = admission
        self._watches = Watches()
        self._max_body_bytes = settings.max_body_mib * 1024**2

    async def serve(self, route: Route, key: Key | None, scope: Scope, receive: Receive, writer: Writer) -> None:
        """Serve one request."""
        exchange = writer.exchange
        exchange.dialect = route.family
        try:
            self._drain.refuse_new()
            raw = await read_body(scope, receive, self._max_body_bytes)
            if raw is None:
                raise ClientGone
            exchange.bytes_in = len(raw)
            work = understood(route, scope, raw, exchange, self._settings)
            watch = Watch(receive, writer, self._settings, self._watches)
            try:
                exchange.queued_at = time.perf_counter()
                await self._admission.enter(key)
                exchange.admitted_at = time.perf_counter()
                try:
                    await self._relay(work, writer, watch)
                finally:
                    self._admission.leave(key)
            except asyncio.CancelledError:
                watch.explain()
                raise
            finally:
                watch.close()
        except ClientGone:
            exchange.outcome = "client gone"
            exchange.status = exchange.status or CLIENT_GONE
        except ServiceError as error:
            await _fail(error, writer)
        except asyncio.CancelledError:
            await _fail(ShuttingDown("The service is stopping."), writer)
            raise

    async def _relay(self, work: Work, writer: Writer, watch: Watch) -> None:
        give_up_at = self._pool.patience()
        lost = False
        while True:
            engine = await self._pool.pick(work.model or self._settings.model, give_up_at)
            watch.begin([_STREAM, *_UNHELD, *work.notes] if work.stream else None)
            try:
                with engine:
                    try:
                        return await self._ask(engine, work, writer, watch)
                    except asyncio.CancelledError:
                        watch.explain()  # an engine that hung has failed
                        raise
            except EngineNotReady:
                if watch.answered or time.monotonic() >= give_up_at:
                    raise
            except EngineLost as error:
                # Once: a request that no engine survives must not go round all of them.
                if watch.answered or lost or work.once or not self._pool.may_ask_again(error):
                    raise
                lost = True
            writer.exchange.retries += 1

    async def _ask(self, engine: Engine, work: Work, writer: Writer, watch: Watch) -> None:
        exchange = writer.exchange
        if self._pool.several:
            exchange.engine = engine.url
        body = work.body_for(engine, self._settings, exchange)
        fresh = work.once or exchange.retries > 0
        reply = await engine.connector.open(work.method, work.target, body, work.headers, fresh=fresh)
        try:
            if reply.status == 200 and _streams(reply):
                await self._stream(work, reply, writer, watch)
            else:
                if reply.status == 404 and work.needs_model:
                    engine.watch.doubt()
                await self._whole(work, reply, writer, watch)
        finally:
            reply.close()

    async def _stream(self, work: Work, reply: Reply, writer: Writer, watch: Watch) -> None:
        passing = Passing(stream_shape(work.call, self._settings.stream_format))
        async for piece in reply.body:
            if ready := passing.feed(piece):
                # A client that reads slowly must not look like an engine that is silent.
                watch.since = None
                if not watch.answered:
                    watch.answers()
                    writer.exchange.first_byte_at = time.perf_counter()
                    if not writer.started:  # by a comment
                        await writer.start(200, [*_passed_on(reply), *_UNHELD, *work.notes])
                await writer.piece(ready)
            watch.heard()
            if watch.answered and reply.pour is not None and (outlet := writer.outlet()) is not None:
                await passing.pour(reply.pour, outlet, writer, watch)
        watch.since = None
        events = passing.events
        if not events.ends_with(work.route.ends):
            lost = "The engine ended the stream before the answer was complete."
            raise EngineLost(lost, unanswered=events.none_yet, told=events.ends_in_error)
        note_usage(writer.exchange, events.tail)
        await writer.end(work.call.trailer if work.call else b"")

    async def _whole(self, work: Work, reply: Reply, writer: Writer, watch: Watch) -> None:
        as_it_comes = 200 <= reply.status < 300 and not work.opea and not writer.started
        body, all_there = await held(reply, HELD_BYTES if as_it_comes else MOST_HELD_BYTES)
        if not all_there:
            if not as_it_comes:
                raise too_large()
            await pass_on(body, reply, [*_passed_on(reply), *work.notes], writer, watch)
            return
        watch.since = None
        if not 200 <= reply.status < 300:
            body = _told(work, reply, body, writer)
        elif work.call is not None:
            note_usage(writer.exchange, body)
            body = whole_reply(work.call, body)
        if writer.started:  # comments only, so far
            raise EngineLost(engine_message(body) or "The engine answered with something that is no stream.")
        headers = _passed_on(reply)
        if work.opea:
            headers = [_JSON, *(header for header in headers if header[0] != b"content-type")]
        await writer.whole(reply.status, body, [*headers, *work.notes])


def _told(work: Work, reply: Reply, body: bytes, writer: Writer) -> bytes:
    """Return what the client is told of an error of the engine's; raise one of ours when it cannot be passed on."""
    if refusal := door_refusal(reply.status, body):
        raise refusal
    if reply.status == 401:
        raise EngineLost("The engine refuses this service's key; set VLLM_API_KEY.")
    message = engine_message(body)
    if message is None:
        if reply.status in (404, 405):
            raise NotFound(f"The engine's model serves no {work.method} {work.route.template}.")
        reason = f"The engine answered with status {reply.status} and no reason."
        raise EngineLost(reason, unanswered=reply.status == 502)
    writer.exchange.outcome = "refused"
    return opea_sentence(message) if work.opea else body


def _streams(reply: Reply) -> bool:
    for name, value in reply.headers:
        if name == b"content-type":
            return value.startswith(b"text/event-stream")
    return False


def _passed_on(reply: Reply) -> list[Header]:
    return [header for header in reply.headers if header[0] not in _NOT_PASSED_ON]


async def _fail(error: ServiceError, writer: Writer) -> None:
    exchange = writer.exchange
    exchange.outcome = error.kind
    status, body = shaped(error, exchange.dialect)
    if not writer.started:
        await writer.whole(status, body, error_headers(error))
        return
    if writer.cut:
        return  # the server closes a connection whose reply was left without its end
    # Without the event that ends a stream: clients take one that ends cleanly for a complete one.
    if not (isinstance(error, EngineLost) and error.told):
        await writer.piece(error_event(error, exchange.dialect))
    await writer.end()
