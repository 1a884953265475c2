"""How a connection to an engine is made, and what is said when it cannot be."""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from llm_service.engines.address import Address
from llm_service.engines.connections import Connections
from llm_service.engines.relay_tls import TlsConnections
from llm_service.engines.upstream import not_connected
from llm_service.errors import EngineNotReady
from tests.unit.service.raw_engine import BODY, finish, opened, raw_engine


async def test_of_several_addresses_of_a_name_the_one_that_listens_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_engine() as engine:
        port = int(engine.address.url.rpartition(":")[2])
        found = [(2, 1, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

        async def addresses(_: Connections) -> Any:
            return found

        monkeypatch.setattr(Connections, "_addresses", addresses)
        connector = Connections(engine.address, 5)
        assert await finish(await opened(connector)) == BODY
        found.pop()
        with pytest.raises(EngineNotReady) as refused:
            await connector.open("POST", "/v1/x", b"{}", [], fresh=True)
        assert refused.value.phase == "starting"
        await connector.aclose()


async def test_a_name_is_looked_up_and_one_that_there_is_not_is_unreachable() -> None:
    async with raw_engine() as engine:
        port = engine.address.url.rpartition(":")[2]
        connector = Connections(Address(f"http://localhost:{port}"), 5)
        assert await finish(await opened(connector)) == BODY
        await connector.aclose()
    with pytest.raises(EngineNotReady, match="no such name"):
        await opened(Connections(Address("http://no-such-engine.invalid:80"), 5))


async def test_a_socket_whose_queue_is_full_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_engine(path=tmp_path / "engine.sock") as engine:
        loop = asyncio.get_running_loop()
        connect = loop.create_unix_connection
        refused = [BlockingIOError(), BlockingIOError()]

        async def busy(factory: Callable[[], Any], path: str) -> Any:
            if refused:
                raise refused.pop()
            return await connect(factory, path)

        monkeypatch.setattr(loop, "create_unix_connection", busy)
        connector = Connections(engine.address, 5)
        assert await finish(await opened(connector)) == BODY
        assert not refused
        await connector.aclose()


def test_failures_to_connect_are_told_apart() -> None:
    told = {
        "starting": [ConnectionRefusedError(), FileNotFoundError()],
        "unreachable": [TimeoutError(), PermissionError(), socket.gaierror(), OSError(errno.EHOSTUNREACH, "no route")],
    }
    for phase, errors in told.items():
        assert [not_connected(error).phase for error in errors] == [phase] * len(errors)
    assert "may not open" in not_connected(PermissionError()).message
    assert "open files" in not_connected(OSError(errno.EMFILE, "many")).message


@pytest.fixture
def full_queue() -> Iterator[int]:
    """A port whose queue of connections is full, so that a further one gets no answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        yield port
        for one in waiting:
            one.close()


@pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("client", [Connections, TlsConnections])
def test_an_address_that_does_not_answer_is_given_up_in_time(client: Any, loops: Any, full_queue: int) -> None:
    async def ask() -> None:
        deaf = client(Address(f"http://127.0.0.1:{full_queue}"), 0.05)
        with pytest.raises(EngineNotReady, match="nothing answers at its address"):
            await opened(deaf)
        await deaf.aclose()

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(ask())
