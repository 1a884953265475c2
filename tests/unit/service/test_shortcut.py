"""Events that go the shortest way are recorded as all others are."""

from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.forms.events import WholeEvents
from llm_service.records.exchange import Exchange
from llm_service.shortcut import shortcut
from tests.unit.service.raw import chunked

pieces = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.binary(max_size=40).map(lambda text: b"data: " + text + b"\n\n"),
    st.sampled_from([b"data: [DONE]\n\n", b'data: {"error": "lost"}\n\n', b": keep-alive\n\n"]),
)


class Client:
    """As an outlet has it."""

    def __init__(self) -> None:
        self.got = b""
        self.left = False
        self.flow = SimpleNamespace(write_paused=False)

    def write_raw(self, data: bytes) -> None:
        if self.left:
            raise RuntimeError("the handler is closed")
        self.got += data


def made(client: Any) -> Any:
    events, exchange = WholeEvents(), Exchange("id", "POST", "/")
    watch: Any = SimpleNamespace(since=0.0, loop=SimpleNamespace(time=lambda: 7.0))
    straight, settle = shortcut(events, client, exchange, watch)
    return SimpleNamespace(events=events, exchange=exchange, watch=watch, straight=straight, settle=settle)


@settings(max_examples=300, deadline=None)
@given(body=st.lists(st.tuples(pieces, st.booleans()), max_size=12))
def test_whichever_way_pieces_go_the_records_are_the_same(body: list[tuple[bytes, bool]]) -> None:
    client, plain = Client(), WholeEvents()
    one = made(client)
    passed = b""
    for piece, offered in body:
        ready = plain.feed(piece)
        passed += chunked(ready) if ready else b""
        if offered and one.straight(chunked(piece), len(piece)):
            continue
        one.settle()
        if ready := one.events.feed(piece):
            client.got += chunked(ready)
            one.exchange.bytes_out += len(ready)
            one.exchange.chunks += 1
    one.settle()
    assert client.got == passed
    assert one.exchange.bytes_out == sum(len(plain) for plain in unchunked(client.got))
    assert one.exchange.chunks == len(unchunked(client.got))
    for mark in ((b"data: [DONE]",), (b"data:",), ()):
        assert one.events.ends_with(mark) == plain.ends_with(mark)
    assert (one.events.tail, one.events.ends_in_error) == (plain.tail, plain.ends_in_error)


def unchunked(data: bytes) -> list[bytes]:
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n")
        size = int(head, 16)
        found.append(rest[:size])
        assert rest[size : size + 2] == b"\r\n"
        data = rest[size + 2 :]
    return found


def test_an_event_that_goes_straight_is_word_of_the_engine() -> None:
    one = made(Client())
    assert one.straight(chunked(b"data: a\n\n"), 9)
    assert one.watch.since == 7.0


def test_a_client_that_lags_or_has_left_is_not_written_to() -> None:
    for client in (lagging := Client(), gone := Client()):
        lagging.flow.write_paused = gone.left = True
        one = made(client)
        assert not one.straight(chunked(b"data: a\n\n"), 9)
        one.settle()
        assert (client.got, one.exchange.chunks, one.exchange.bytes_out) == (b"", 0, 0)


def test_half_an_event_waits_for_its_other_half() -> None:
    one = made(client := Client())
    assert not one.straight(chunked(b"data: "), 6)
    assert one.events.feed(b"data: ") == b""
    assert not one.straight(chunked(b"a\n\n"), 3)
    assert client.got == b""
