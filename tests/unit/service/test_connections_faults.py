"""An engine's faults as both clients see them: the lean one, by TCP and by Unix socket, and aiohttp's."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from llm_service.engines.address import Address
from llm_service.engines.connections import Connections
from llm_service.engines.relay_tls import TlsConnections
from llm_service.engines.upstream import Connector
from llm_service.errors import BadRequest, EngineLost
from tests.unit.service.raw_engine import BODY, WHOLE, Answering, Exchange, RawEngine, raw_engine

Run = Callable[..., Any]
HEADERS = [(b"content-type", b"application/json")]
HEAD_BYTES = len(WHOLE) - len(BODY)
CHUNKED_HEAD = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = CHUNKED_HEAD + b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (20, BODY[:20], len(BODY) - 20, BODY[20:])


class Client:
    """One way to an engine that answers in a given way."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        self._path = path / "engine.sock" if kind == "socket" else None

    def connector(self, address: Address) -> Connector:
        made = TlsConnections if self.kind == "aiohttp" else Connections
        return made(address, 5.0)

    def __call__(self, answering: Answering, work: Callable[[Connector, RawEngine], Coroutine[Any, Any, Any]]) -> Any:
        async def run() -> Any:
            async with raw_engine(answering, self._path) as engine:
                connector = self.connector(engine.address)
                try:
                    return await asyncio.wait_for(work(connector, engine), 60)
                finally:
                    await connector.aclose()

        loops = asyncio.new_event_loop if self.kind == "tcp" else uvloop.new_event_loop
        with asyncio.Runner(loop_factory=loops) as runner:
            return runner.run(run())


@pytest.fixture(params=["tcp", "tcp uvloop", "socket", "aiohttp"])
def client(request: Any, tmp_path: Path) -> Client:
    return Client(request.param, tmp_path)


@pytest.fixture(params=["tcp", "tcp uvloop", "socket"])
def lean(request: Any, tmp_path: Path) -> Client:
    return Client(request.param, tmp_path)


async def asked(connector: Connector, body: bytes = b"{}", *, fresh: bool = False) -> tuple[int, bytes]:
    reply = await connector.open("POST", "/v1/x", body, HEADERS, fresh=fresh)
    try:
        return reply.status, b"".join([piece async for piece in reply.body])
    finally:
        reply.close()


@pytest.mark.parametrize("end", [Exchange.close, Exchange.reset], ids=["closed", "reset"])
@pytest.mark.parametrize("data", [WHOLE, CHUNKED], ids=["length", "chunked"])
def test_an_engine_that_ends_at_any_byte_of_its_reply_is_lost(
    client: Client, data: bytes, end: Callable[[Exchange], None]
) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.send(data[:offset])
        end(exchange)

    async def at_each_offset(connector: Connector, engine: RawEngine) -> None:
        nonlocal offset
        begins = HEAD_BYTES if data is WHOLE else len(CHUNKED_HEAD)
        for offset in range(len(data)):
            with pytest.raises(EngineLost) as lost:
                await asked(connector)
            # A reset may take bytes with it that were on their way.
            assert lost.value.unanswered or offset > begins
            assert lost.value.reused is (client.kind == "aiohttp" and lost.value.unanswered and offset < begins)
        assert len(engine.requests) == len(data)

    offset = 0
    client(cut, at_each_offset)


@pytest.mark.parametrize("end", [Exchange.close, Exchange.reset], ids=["closed", "reset"])
def test_a_kept_connection_that_the_engine_ended_meanwhile_is_not_used(
    client: Client, end: Callable[[Exchange], None]
) -> None:
    async def once(exchange: Exchange) -> None:
        await exchange.send(WHOLE)
        asyncio.get_running_loop().call_later(0.001, end, exchange)

    async def twice(connector: Connector, engine: RawEngine) -> None:
        for _ in range(3):
            assert await asked(connector) == (200, BODY)
            await engine.idle()
            await asyncio.sleep(0)
        assert engine.connections == 3

    client(once, twice)


def test_a_kept_connection_that_dies_when_it_is_used_again_says_so(lean: Client) -> None:
    async def once(exchange: Exchange) -> None:
        await exchange.send(WHOLE) if exchange.number == 0 else exchange.reset()

    async def twice(connector: Connector, engine: RawEngine) -> None:
        assert await asked(connector) == (200, BODY)
        with pytest.raises(EngineLost) as lost:
            await asked(connector)
        assert (lost.value.unanswered, lost.value.reused) == (True, True)
        assert await asked(connector, fresh=True) == (200, BODY)
        assert engine.connections == 2

    lean(once, twice)


def test_garbage_is_no_http(client: Client) -> None:
    async def garbage(exchange: Exchange) -> None:
        await exchange.send(b"\x00\x01 not http at all\r\n\r\n")
        exchange.close()

    async def ask(connector: Connector, engine: RawEngine) -> None:
        with pytest.raises(EngineLost, match="not HTTP") as lost:
            await asked(connector)
        assert not lost.value.unanswered

    client(garbage, ask)


def test_a_body_without_a_length_ends_when_the_engine_closes(client: Client) -> None:
    async def unframed(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
        exchange.close()

    async def ask(connector: Connector, engine: RawEngine) -> None:
        assert await asked(connector) == (200, BODY)

    client(unframed, ask)


@pytest.mark.parametrize("phase", ["before the head", "after the head", "in the body"])
def test_a_request_that_is_given_up_closes_its_connection(client: Client, phase: str) -> None:
    seen = asyncio.Event()

    async def hang(exchange: Exchange) -> None:
        if phase != "before the head":
            await exchange.send(WHOLE[:HEAD_BYTES] + (BODY[:5] if phase == "in the body" else b""))
        seen.set()
        await exchange.left()
        exchange.close()

    async def give_up(connector: Connector, engine: RawEngine) -> None:
        asking = asyncio.ensure_future(asked(connector))
        await seen.wait()
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait((asking,))
        await engine.idle()

    client(hang, give_up)


def test_a_wait_for_a_piece_that_is_cancelled_loses_nothing(client: Client) -> None:
    more = asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        await exchange.send(WHOLE[:HEAD_BYTES])
        for begin in range(0, len(BODY), 10):
            await more.wait()
            more.clear()
            await exchange.send(BODY[begin : begin + 10])

    async def impatient(connector: Connector, engine: RawEngine) -> None:
        reply = await connector.open("POST", "/v1/x", b"{}", HEADERS)
        taken = b""
        while len(taken) < len(BODY):
            waiting = asyncio.ensure_future(anext(reply.body))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait((waiting,))
            more.set()
            taken += await anext(reply.body)
        with pytest.raises(StopAsyncIteration):
            await anext(reply.body)
        assert taken == BODY

    client(slowly, impatient)


def test_an_engine_waits_for_a_slow_reader_and_everything_arrives(client: Client) -> None:
    size, sent = 60_000_000, 0

    async def flood(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            await exchange.send(b"a" * 100_000)
            sent += 100_000

    async def slowly(connector: Connector, engine: RawEngine) -> None:
        reply = await connector.open("POST", "/v1/x", b"{}", HEADERS)
        seen = -1
        while seen < sent:  # until nothing moves any more
            seen = sent
            for _ in range(100):
                await asyncio.sleep(0.0005)
        assert sent < size // 2
        assert sum([len(piece) async for piece in reply.body]) == size

    client(flood, slowly)


def test_an_engine_that_answers_before_it_has_read_a_large_request_is_heard(lean: Client) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await exchange.left()

    async def ask(connector: Connector, engine: RawEngine) -> None:
        engine.reads_bodies = False
        assert await asked(connector, b"a" * 30_000_000) == (413, b"big")
        await engine.idle()

    lean(refuse, ask)


def test_nothing_of_a_request_can_become_a_header_or_a_second_request(lean: Client) -> None:
    async def ask(connector: Connector, engine: RawEngine) -> None:
        for path in ("/v1/x HTTP/1.1\r\nX: 1", "/v1/\u00e9", "v1", "", "/a b"):
            with pytest.raises(BadRequest):
                await connector.open("GET", path, None, [])
        for header in ((b"x", b"1\r\ny: 2"), (b"x\n", b"1"), (b"x", b"1\r")):
            with pytest.raises(BadRequest):
                await connector.open("GET", "/v1/x", None, [header])
        assert engine.connections == 0

    async def never(exchange: Exchange) -> None:
        raise AssertionError

    lean(never, ask)
