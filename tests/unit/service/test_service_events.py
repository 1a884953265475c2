"""Events of a stream: handed out whole, whatever pieces they come in, and known by their ends. No network here."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.errors import EngineLost, EngineNotReady, ServiceError, ShuttingDown, anthropic_body, openai_body
from llm_service.forms.events import Literals, WholeEvents, error_event
from llm_service.forms.replies import door_refusal

LOST = EngineLost("The engine went away.")
DONE = b"data: [DONE]\n\n"


def told(text: str) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()


_events = st.lists(st.text(max_size=6).map(told) | st.just(b": keep-alive\n\n"), max_size=6)


@given(_events, st.lists(st.integers(0, 400)), st.booleans())
def test_whatever_the_pieces_only_whole_events_come_out_and_all_of_them(
    stream: list[bytes], cuts: list[int], windows: bool
) -> None:
    whole = b"".join((*stream, DONE))
    if windows:
        whole = whole.replace(b"\n", b"\r\n")
    end = b"\r\n\r\n" if windows else b"\n\n"
    events = WholeEvents()
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    out = [events.feed(whole[start:stop]) for start, stop in itertools.pairwise(places)]
    assert b"".join(out) == whole
    assert all(piece.endswith(end) for piece in out if piece)
    assert events.ends_with((b"data: [DONE]",))
    assert not events.ends_in_error


@pytest.mark.parametrize(
    ("stream", "mark", "complete"),
    [
        (told("a") + DONE, b"data: [DONE]", True),
        (told("a") + DONE[:-1], b"data: [DONE]", False),
        (told("data: [DONE]"), b"data: [DONE]", False),
        (told("\n\ndata: [DONE]\n\n"), b"data: [DONE]", False),
        (b'event: message_stop\ndata: {"type":"message_stop"}\n\n', b"event: message_stop", True),
        (told("event: message_stop"), b"event: message_stop", False),
        (b"", b"data: [DONE]", False),
    ],
)
def test_a_stream_is_complete_by_its_last_event_and_not_by_what_a_model_says(
    stream: bytes, mark: bytes, complete: bool
) -> None:
    events = WholeEvents()
    events.feed(stream)
    assert events.ends_with((mark,)) is complete


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "opea"])
def test_an_error_event_of_a_service_nearer_to_the_engine_is_known(dialect: str) -> None:
    events = WholeEvents()
    events.feed(told("a") + error_event(LOST, dialect))
    assert events.ends_in_error
    assert not events.ends_with((b"data: [DONE]",))


@pytest.mark.parametrize("shape", [openai_body, anthropic_body])
def test_an_error_of_a_service_nearer_to_the_engine_is_known_in_both_shapes(shape: object) -> None:
    assert callable(shape)

    def refusal(error: ServiceError) -> ServiceError | None:
        return door_refusal(error.status, shape(error))

    for error, phase in (
        (EngineNotReady("It loads.", phase="loading"), "loading"),
        (ShuttingDown("It stops.", phase="draining"), "draining"),
    ):
        known = refusal(error)
        assert isinstance(known, EngineNotReady)
        assert (known.message, known.phase) == (error.message, phase)
    lost = refusal(LOST)
    assert isinstance(lost, EngineLost)
    assert lost.unanswered


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b'{"error":{"message":"The queue is full.","type":"Service Unavailable","code":503}}'),
        (503, b'{"type":"error","error":{"type":"overloaded_error","message":"The queue is full."}}'),
        (500, openai_body(LOST)),
        (502, b"<html>"),
    ],
)
def test_what_an_engine_itself_says_is_no_such_error(status: int, body: bytes) -> None:
    assert door_refusal(status, body) is None


@given(st.lists(st.text(min_size=1, max_size=6), max_size=5), st.booleans())
def test_literals_hold_the_same_text(texts: list[str], as_bytes: bool) -> None:
    shape = Literals(as_bytes=as_bytes)
    out = shape.feed(b"".join(map(told, texts)) + b": keep-alive\n\n" + error_event(LOST, "opea") + DONE)
    *literals, comment, error, done, rest = out.decode().split("\n\n")
    assert literals == [f"data: {text.encode() if as_bytes else text!r}" for text in texts]
    assert (comment, json.loads(error[6:])["error"]["code"], done, rest) == (": keep-alive", 502, "data: [DONE]", "")
