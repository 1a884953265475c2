"""Clients that mean harm, or are many: the service as a process keeps its memory, its files and its manners.

Bounds on memory are several times what was measured, and far below what the fault that they stand for would take.
"""

import contextlib
import json
import resource
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPENAI_BODY
from tests.unit.service.raw import post
from tests.unit.service.test_service_process import Process

BODY = json.dumps(OPENAI_BODY).encode()
STREAM = json.dumps({**OPENAI_BODY, "stream": True}).encode()
MIB = 2**20
Begin = Callable[..., Process]


@pytest.fixture
def engine() -> Iterator[StubEngine]:
    with StubEngine() as engine:
        yield engine


@pytest.fixture
def begin(engine: StubEngine, tmp_path: Path) -> Iterator[Begin]:
    begun: list[Process] = []

    def one(**settings: str) -> Process:
        begun.append(Process(tmp_path / "log", LLM_VLLM_ENDPOINT=engine.url, **settings))
        assert answers(begun[-1])
        return begun[-1]

    yield one
    for service in begun:
        service.process.kill()
        service.process.wait(10)


def answers(service: Process) -> bool:
    return httpx.post(service.url + CHAT, content=BODY, timeout=20, trust_env=False).status_code == 200


def memory(service: Process) -> int:
    """Resident memory in bytes."""
    pages = Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def files(service: Process) -> int:
    """How many files and connections are open."""
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


def connected(service: Process) -> socket.socket:
    host, port = service.address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=20)


def reset(client: socket.socket) -> None:
    """Leave without a word of farewell."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", post(STREAM), post(BODY)[:-5]])
def test_a_thousand_clients_that_connect_and_leave_are_forgotten(begin: Begin, engine: StubEngine, sent: bytes) -> None:
    engine.knobs.hold = "after first piece"
    service = begin()
    before = files(service), memory(service)
    for number in range(1000):
        client = connected(service)
        client.sendall(sent)
        if number % 2:
            reset(client)
        else:
            client.close()
    wait_until(lambda: files(service) <= before[0] + 2, 30, "their connections are closed")
    wait_until(lambda: all(chat.client_left or chat.answered for chat in engine.chats), 30, "the engine is let go")
    assert memory(service) - before[1] < 40 * MIB
    assert answers(service)


def test_five_hundred_readers_that_do_not_read_take_little_memory(begin: Begin, engine: StubEngine) -> None:
    engine.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)  # so that it has to wait soon
    service = begin(LLM_MAX_IN_FLIGHT="600")
    engine.knobs.pieces = ["a" * 20_000] * 5000  # 100 MB for each of them
    before = memory(service)
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            client = stack.enter_context(connected(service))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(post(STREAM))
        wait_until(lambda: len(engine.chats) >= 501, 60, "all have begun")
        sent = [0]

        def waits() -> bool:
            sent.append(sum(chat.pieces_sent for chat in engine.chats))
            return sent[-1] == sent[-2]

        wait_until(waits, 120, "the engine waits for all of them", interval=0.5)
        grown = memory(service) - before
        print(f"500 readers that do not read: {grown / MIB:.0f} MiB")
        assert grown < 200 * MIB
        engine.knobs.pieces = ["a"]
        assert answers(service)
    wait_until(lambda: all(chat.client_left or chat.answered for chat in engine.chats), 60, "the engine is let go")


def test_a_thousand_clients_that_send_their_heads_slowly_keep_nobody_out(begin: Begin) -> None:
    service = begin(LLM_HEADER_TIMEOUT_SECONDS="3")
    before = files(service)
    over = threading.Event()
    attackers = [connected(service) for _ in range(1000)]

    def attack() -> None:
        for attacker in attackers:
            attacker.setblocking(False)
        while not over.wait(0.2):
            for attacker in attackers:
                with contextlib.suppress(OSError):
                    attacker.send(b"X: y\r\n" if attacker.fileno() % 2 else b"G")

    attacking = threading.Thread(target=attack)
    attacking.start()
    try:
        while files(service) > before + 2:  # until the last of them is turned away
            assert answers(service)
    finally:
        over.set()
        attacking.join()
        for attacker in attackers:
            attacker.close()
    assert answers(service)


def test_bodies_of_a_hundred_megabytes_are_refused_before_they_are_held(begin: Begin) -> None:
    service = begin()
    before = memory(service)
    body = b"a" * 100_000_000

    def sent(chunked: bool) -> int:
        client = HTTPConnection(service.address, timeout=60)
        parts = (body[at : at + MIB] for at in range(0, len(body), MIB)) if chunked else body
        headers = {"Transfer-Encoding": "chunked"} if chunked else {}
        # Once it has answered, the service reads on for some seconds only: a busy machine may not send all in these.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.request("POST", CHAT, parts, headers, encode_chunked=chunked)
        status = client.getresponse().status
        client.close()
        return status

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(sent, [False] * 8)) == [413] * 8
        print(f"8 bodies of 100 MB with their length: {(memory(service) - before) / MIB:.0f} MiB")
        assert memory(service) - before < 40 * MIB
        assert list(pool.map(sent, [True] * 4)) == [413] * 4
    print(f"after {(memory(service) - before) / MIB:.0f}")
    assert memory(service) - before < 100 * MIB  # and not what was held of them
    assert answers(service)


def test_when_files_run_out_those_who_are_served_still_are(begin: Begin, engine: StubEngine) -> None:
    service = begin()
    _, hard = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (files(service) + 20, hard))
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(httpx.Client(base_url=service.url, timeout=20, trust_env=False))
        assert first.post(CHAT, content=BODY).status_code == 200
        for _ in range(100):
            with contextlib.suppress(OSError):
                stack.enter_context(connected(service))
        assert [first.post(CHAT, content=BODY).status_code for _ in range(5)] == [200] * 5
    wait_until(lambda: answers(service), 20, "new clients are served again")
