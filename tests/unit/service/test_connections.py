"""Connections to an engine: which are kept and for how long, how they are made, and which client makes them."""

import asyncio
import gc
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from llm_service.engines import connections
from llm_service.engines.address import Address
from llm_service.engines.connections import Connections
from llm_service.engines.relay import Relay, goes_far
from llm_service.engines.wire import Wire
from llm_service.errors import EngineNotReady, EngineTimeout
from tests.unit.service.raw_engine import BODY, WHOLE, Exchange, finish, opened, raw_engine

MICROSERVICE = Path(__file__).parents[3] / "microservice"


class Held:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Event] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.waiting.append(asyncio.Event())
        await exchange.send(WHOLE[: -len(BODY)])
        await self.waiting[-1].wait()
        await exchange.send(BODY)


async def test_requests_one_after_the_other_share_a_connection_and_the_one_used_last_goes_first() -> None:
    held = Held()
    async with raw_engine(held) as engine:
        connector = Connections(engine.address, 5)
        first, second = await opened(connector), await opened(connector)
        for reply, event in zip((second, first), reversed(held.waiting), strict=True):
            event.set()
            assert await finish(reply) == BODY
        last_used = engine.requests[0].writer
        for _ in range(3):
            reply = await opened(connector)
            held.waiting[-1].set()
            assert await finish(reply) == BODY
            assert engine.requests[-1].writer is last_used
        assert engine.connections == 2
        await connector.aclose()


async def test_a_connection_that_was_idle_too_long_is_not_used_and_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_engine() as engine:
        connector = Connections(engine.address, 5)
        assert await finish(await opened(connector)) == BODY
        monkeypatch.setattr(connections, "KEEP_ALIVE_SECONDS", 0.0)
        assert await finish(await opened(connector)) == BODY
        assert engine.connections == 2
        await engine.idle()
        await connector.aclose()


async def test_connections_are_kept_for_less_than_vllm_keeps_them() -> None:
    assert connections.KEEP_ALIVE_SECONDS < 5


async def test_a_fresh_connection_serves_one_request_only() -> None:
    async with raw_engine() as engine:
        connector = Connections(engine.address, 5)
        for count in (1, 2, 3):
            reply = await connector.open("POST", "/v1/x", b"{}", [], fresh=True)
            assert (await finish(reply), engine.connections, engine.requests[-1].number) == (BODY, count, 0)
            assert b"\r\nconnection: close\r\n" in engine.requests[-1].head
        await engine.idle()
        await connector.aclose()


async def test_closing_ends_idle_connections_and_those_at_work() -> None:
    held = Held()
    async with raw_engine(held) as engine:
        connector = Connections(engine.address, 5)
        reply = await opened(connector)
        held.waiting[0].set()
        await finish(reply)
        at_work = await opened(connector)
        another = await opened(connector)
        await connector.aclose()
        await connector.aclose()
        for event in held.waiting:
            event.set()
        await engine.idle()
        for reply in (at_work, another):
            reply.close()


async def test_connections_that_ended_leave_nothing_that_has_to_be_searched_for() -> None:
    gc.collect()
    gc.disable()
    try:
        async with raw_engine() as engine:
            connector = Connections(engine.address, 5)
            for _ in range(5):
                await finish(await connector.open("POST", "/v1/x", b"{}", [], fresh=True))
            await engine.idle()
            await asyncio.sleep(0)
            wires = [one for one in gc.get_objects() if type(one) is Wire]
            assert not [one for one in wires if one._buffer.obj is connector._buffer]
            await connector.aclose()
    finally:
        gc.enable()


@pytest.mark.parametrize("body", [None, b"", b"x" * 300_000])
async def test_a_request_says_its_length_and_whom_it_is_for(body: bytes | None) -> None:
    async with raw_engine() as engine:
        connector = Connections(Address(f"{engine.address.url}/under", "a-key"), 5)
        headers = [(b"x-request-id", b"abc"), (b"content-type", b"a/b")]
        await finish(await connector.open("POST", "/v1/x?y=1%20", body, headers))
        first, *lines = engine.requests[0].head.decode().strip().split("\r\n")
        assert first == "POST /under/v1/x?y=1%20 HTTP/1.1"
        assert sorted(lines) == sorted(
            [
                f"host: {engine.address.url.removeprefix('http://')}",
                "accept-encoding: identity",
                "authorization: Bearer a-key",
                "x-request-id: abc",
                "content-type: a/b",
                f"content-length: {len(body or b'')}",
            ]
        )
        assert engine.requests[0].body == (body or b"")
        await connector.aclose()


async def test_a_question_has_a_connection_of_its_own_and_says_no_length() -> None:
    async with raw_engine() as engine:
        relay = Relay(engine.address, 5)
        assert await relay.get("/v1/models", 5) == (200, "application/json", BODY)
        assert b"content-length" not in engine.requests[0].head
        assert await finish(await relay.open("POST", "/v1/x", b"{}", [])) == BODY
        assert engine.connections == 2
        await relay.aclose()


async def test_a_question_is_given_up_in_time_and_its_connection_closed() -> None:
    async with raw_engine(lambda exchange: exchange.left()) as engine:
        relay = Relay(engine.address, 5)
        with pytest.raises(EngineTimeout):
            await relay.get("/health", 0.05)
        await engine.idle()
        await relay.aclose()


@pytest.mark.parametrize("trusted", [True, False])
async def test_an_engine_behind_tls_is_reached_when_its_certificate_is_accepted(
    trusted: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    if trusted:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        trust = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trust)
    async with raw_engine(tls=served) as engine:
        relay = Relay(engine.address, 5)
        if trusted:
            assert await relay.get("/v1/models", 5) == (200, "application/json", BODY)
        else:
            with pytest.raises(EngineNotReady, match="certificate"):
                await relay.get("/v1/models", 5)
        await relay.aclose()


@pytest.mark.parametrize(
    ("url", "proxies", "far"),
    [
        ("http://127.0.0.1:8008", {"http": "http://proxy"}, False),
        ("http://engine:8008", {"all": "http://proxy"}, False),
        ("unix:///run/a.socket", {"http": "http://proxy"}, False),
        ("http://llm.example.com", {}, False),
        ("http://llm.example.com", {"https": "http://proxy"}, False),
        ("http://llm.example.com", {"http": "http://proxy"}, True),
        ("http://llm.example.com", {"all": "http://proxy"}, True),
        ("https://engine:8008", {}, True),
    ],
)
def test_https_and_proxies_are_aiohttps(
    url: str, proxies: dict[str, str], far: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_service.engines.relay.getproxies", lambda: proxies)
    assert goes_far(Address(url)) is far


def test_for_an_engine_nearby_aiohttp_is_not_loaded() -> None:
    look = "import sys, llm_service.__main__; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], cwd=MICROSERVICE, check=False).returncode == 0
