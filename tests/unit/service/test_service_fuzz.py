"""Fuzzing: heads and bodies that nobody would write. The service answers each with what it declares, and lives on.

BERTH_FUZZ_EXAMPLES says how many cases each test tries; the default is a slice for every run. 100000 take about
an hour.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_service.config.loading import load
from llm_service.paths import Paths
from llm_service.port import front
from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPEA_BODY, OPENAI_BODY, Door, Running
from tests.unit.service.raw import Answer, Raw, post

EXAMPLES = os.environ.get("BERTH_FUZZ_EXAMPLES")
# Whoever asks for more has the time: an hour is more than a test may take otherwise.
pytestmark = [pytest.mark.timeout(0)] if EXAMPLES else []
many = settings(
    max_examples=int(EXAMPLES or 100),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
KEY = b"Authorization: Bearer key-one"
POSTED = sorted(
    {route.template for method, route in Paths().relayed() if method == "POST" and "{" not in route.template}
)
OURS = {200, 400, 401, 404, 405, 408, 413, 414, 422, 429, 431, 502}
# A header that is not one of these was smuggled into a reply.
HEADERS = {
    *("date", "content-type", "content-length", "connection", "transfer-encoding", "x-request-id", "www-authenticate"),
    *("x-content-type-options", "x-frame-options", "retry-after", "allow", "cache-control", "x-accel-buffering"),
    *("etag", "referrer-policy", "content-security-policy", "cross-origin-opener-policy", "x-berth-warning"),
    "cross-origin-resource-policy",
}


class Faults(logging.Handler):
    """Keeps what was logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.seen.append(logging.Formatter().format(record))


@contextmanager
def opened(directory: Path, **environ: str) -> Iterator[Door]:
    """A door with a key, in front of a stub that answers every path. Nothing may be logged as an error."""
    (directory / "keys").write_text("key-one\n")
    (directory / "keys").chmod(0o600)
    engine, faults, patch = StubEngine(), Faults(), pytest.MonkeyPatch()
    engine.listen()
    engine.knobs.others = {path: b'{"object": "any"}' for path in POSTED if path != CHAT}
    environ |= {"LLM_VLLM_ENDPOINT": engine.url, "LLM_API_KEYS_FILE": str(directory / "keys")}
    patch.setattr(front, "SWEEP_SECONDS", 0.01)
    patch.setattr(front, "IDLE_SECONDS", 0.1)
    logging.getLogger().addHandler(faults)
    door = Door(engine, Running(load(environ)))
    yield door
    lives_on(door)
    logging.getLogger().removeHandler(faults)
    patch.undo()
    door.client.close()
    engine.close()
    door.service.stop()
    assert not faults.seen, faults.seen[0]


def lives_on(door: Door) -> None:
    """Check that a door answers as before, and that nothing is left of earlier connections."""
    with Raw(door, post(json.dumps(OPENAI_BODY).encode(), KEY)) as client:
        assert client.reply().status == 200
    connections = door.service.server.server_state.connections
    wait_until(lambda: not connections, 20, "no connection is left", interval=0.01)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door that waits for nobody."""
    limits = {"LLM_HEADER_TIMEOUT_SECONDS": "0.1", "LLM_BODY_TIMEOUT_SECONDS": "0.1", "LLM_MAX_BODY_MIB": "1"}
    with opened(tmp_path_factory.mktemp("hasty"), **limits) as door:
        yield door


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door with default limits."""
    with opened(tmp_path_factory.mktemp("patient")) as door:
        yield door


def checked(answer: Answer) -> Answer:
    """An answer that the service may give."""
    assert answer.status in OURS, f"{answer.status}: {answer.body!r}"
    assert set(answer.headers) <= HEADERS
    if answer.status >= 400 and answer.headers["content-type"] == "application/json" and answer.body:
        assert {"error", "detail"} & set(json.loads(answer.body))
    return answer


token = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=12).map(str.encode)
junk = st.binary(max_size=40)
method = st.sampled_from([b"GET", b"POST", b"HEAD", b"DELETE", b"OPTIONS", b"CONNECT", b"PRI", b"get", b""]) | token
target = st.sampled_from(
    [b"/", b"/health", b"/page/app.js", b"/metrics", b"*", b"//", b"/%", b"/%00", b"http://x/health"]
)
target |= st.sampled_from([path.encode() for path in POSTED]) | junk.map(lambda tail: b"/" + tail)
version = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b"HTTP/1.", b""])
names = (b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"Authorization")
names += (b"X-Request-Id", b"Traceparent", b"Accept-Encoding", b"Origin", b"Cookie", b"Content-Type", b"If-None-Match")
value = st.sampled_from([b"chunked", b"5", b"-1", b"0", b"close", b"upgrade", b"h2c", b"websocket", b"100-continue"])
value |= (
    st.sampled_from([b"Bearer key-one", b"bearer", b"gzip, chunked", b"a" * 128, b"1\r\nX-Smuggled: 1", b""]) | junk
)
header = st.tuples(st.sampled_from(names) | token | junk, st.sampled_from([b": ", b":", b" : ", b""]), value).map(
    b"".join
)
line_end = st.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b"\r\n "])
body = (
    st.sampled_from([b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n", b"0\r\nX: y\r\n\r\n"]) | junk
)


@st.composite
def requests(draw: st.DrawFn) -> list[bytes]:
    """One request or something like it, in pieces."""
    lines = [b" ".join((draw(method), draw(target), draw(version))), *draw(st.lists(header, max_size=6))]
    text = b"".join(line + draw(line_end) for line in lines) + draw(st.sampled_from([b"\r\n"] * 9 + [b""])) + draw(body)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@many
@given(pieces=requests())
def test_any_head_is_answered_or_closed(hasty: Door, pieces: list[bytes]) -> None:
    with Raw(hasty) as client:
        for piece in pieces:
            client.send(piece)
        answers = client.answers("HEAD" if b"".join(pieces).startswith(b"HEAD ") else "GET")
    for answer in answers:
        checked(answer)
        if answer.status == 200 and not b"".join(pieces).lower().count(b"key-one"):
            assert answer.headers["content-type"].startswith("text/")  # the page


json_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
known = ("model", "messages", "stream", "streaming", "max_tokens", "max_new_tokens", "n", "tools", "prompt", "data")
known += ("input", "store", "output_guardrail_params", "input_guardrail_params", "logprobs", "typical_p", "temperature")
whole = st.sampled_from([OPENAI_BODY, OPEA_BODY, {"messages": "text"}, {**OPENAI_BODY, "stream": True}, {}])
odd = st.builds(
    lambda base, more: {**base, **more}, whole, st.dictionaries(st.sampled_from(known), json_value, max_size=4)
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON, or what is left of it after bytes were cut out, put in or turned over."""
    text = json.dumps(draw(odd | json_value)).encode()
    for _ in range(draw(st.integers(0, 2))):
        at, to = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
        text = text[:at] + draw(st.binary(max_size=4)) + text[to:]
    return text


@many
@given(path=st.sampled_from(POSTED), body=bodies())
def test_any_body_is_answered(patient: Door, path: str, body: bytes) -> None:
    with Raw(patient, post(body, KEY, b"Connection: close", path=path.encode())) as client:
        checked(client.reply())
        assert client.rest() == b""
    for record in patient.engine.records:
        if record.method == "POST" and not record.path.startswith("/v1/audio/"):
            sent: Any = json.loads(record.body)  # what is no JSON object never gets to the engine
            assert isinstance(sent, dict)
    patient.engine.records.clear()
