"""A reply's head and its first bytes are one write, and no reply waits for bytes that never come."""

from types import SimpleNamespace

import pytest

from llm_service.port.held import Held
from tests.unit.service.door import CHAT, OPENAI_BODY, Door


class Transport:
    """Takes note of each write."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def test_a_head_is_written_with_what_follows_and_the_rest_directly() -> None:
    transport, cycle = Transport(), SimpleNamespace()
    held = cycle.transport = Held(cycle, transport)
    held.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    held.write(b"HTTP/1.1 200 OK\r\n\r\n")
    assert transport.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    held.write(b"body")
    assert transport.written[1:] == [b"HTTP/1.1 200 OK\r\n\r\nbody"]
    assert cycle.transport is transport


def test_a_head_is_not_lost_when_the_connection_closes() -> None:
    transport, cycle = Transport(), SimpleNamespace()
    held = cycle.transport = Held(cycle, transport)
    held.write(b"HTTP/1.1 200 OK\r\n\r\n")
    held.close()
    assert (transport.written, transport.closed) == ([b"HTTP/1.1 200 OK\r\n\r\n"], True)


@pytest.mark.parametrize("method", ["HEAD", "GET", "OPTIONS"])
@pytest.mark.parametrize("path", ["/health", "/nothing", CHAT])
def test_replies_of_every_kind_arrive_on_one_connection(door: Door, method: str, path: str) -> None:
    for _ in range(2):
        assert door.client.request(method, path).status_code in (200, 404, 405)
    assert door.chat(OPENAI_BODY).status_code == 200


def test_the_head_of_a_stream_does_not_wait_for_its_end(door: Door) -> None:
    door.engine.knobs.hold = "after first piece"
    with door.client.stream("POST", CHAT, json={**OPENAI_BODY, "stream": True}) as reply:
        assert reply.status_code == 200
        assert next(reply.iter_raw())
