"""What clients, engine and keys say is in no log line, no metric and no trace: all say one word, and it is sought."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.stub_engine import StubEngine
from tests.unit.service.collector import Collector
from tests.unit.service.door import CHAT
from tests.unit.service.test_service_process import Process

WORD = "canary"
KEY = "canary-key"
CHATS: tuple[dict[str, Any], ...] = (
    {"messages": [{"role": "user", "content": WORD}], "stop": WORD, "user": WORD, "metadata": {WORD: WORD}},
    {"messages": {"system": WORD, "user": WORD}, "data": {WORD: WORD}},
    {"messages": WORD},
    {"messages": [WORD], "max_tokens": WORD, WORD: WORD},
    {"messages": {WORD: WORD}},
)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def failing(engine: StubEngine, how: dict[str, Any]) -> None:
    """Let the engine fail in this way, with the word in what it says."""
    engine.reset()
    engine.knobs.pieces = [WORD, WORD]
    engine.knobs.error_body = b'{"error":{"message":"canary is too large","type":"canary","code":400}}'
    for name, value in how.items():
        setattr(engine.knobs, name, value)


def say_everything(url: str, engine: StubEngine) -> list[int]:
    """Send the word wherever a client can, to an engine that repeats it, in good times and bad; return the statuses."""
    statuses = []
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"

        def post(path: str, **request: Any) -> None:
            try:
                statuses.append(client.post(path, **request).status_code)
            except httpx.TransportError:
                statuses.append(0)

        troubles: tuple[dict[str, Any], ...] = (
            {},
            {"status": 400},
            {"status": 500},
            {"die": "before headers"},
            {"die": "in event"},
            {"whole_body": b"canary"},
            {"garbage": True},
        )
        for trouble in troubles:
            failing(engine, trouble)
            for body in CHATS:
                post(CHAT, json=body)
                post(CHAT, json={**body, "stream": True})
        post(CHAT, content=b'{"messages": canary')
        post(CHAT, json=CHATS[0], params={WORD: WORD})
        post(CHAT, json=CHATS[0], headers={"Authorization": "Bearer canary-of-another"})
        post(CHAT, json=CHATS[0], headers={"X-Request-Id": "canary canary", "Cookie": WORD, "X-Api-Key": WORD})
        for path in ("/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/messages"):
            post(path, json={"model": "stub-model", "prompt": WORD, "input": WORD, "messages": [WORD]})
    return statuses


def test_a_word_that_everybody_says_is_in_no_log_no_metric_and_no_trace(
    begin: Callable[..., StubEngine], collector: Collector, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    (tmp_path / "keys").write_text(f"alice sha256:{digest}\n")
    engine = begin()
    engine.knobs.api_key = None
    service = Process(
        tmp_path / "log",
        LLM_VLLM_ENDPOINT=engine.url,
        VLLM_API_KEY="canary-of-the-engine",
        LLM_API_KEYS_FILE=str(tmp_path / "keys"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
    )
    try:
        statuses = say_everything(service.url, engine)
        metrics = httpx.get(f"{service.url}/metrics", headers={"X-Api-Key": KEY}, trust_env=False).text
    finally:
        service.process.terminate()
        service.process.wait(20)
    log = (tmp_path / "log").read_text() + capfd.readouterr().err
    assert {200, 400, 401, 422, 500, 502, 503} <= set(statuses), " ".join(map(str, statuses))
    assert (log.count('"message":"request"'), "alice" in metrics) == (len(statuses) + 1, True)
    assert len(collector.spans) == len(statuses) - statuses.count(401)
    for told in (log, metrics, collector.raw.decode(errors="replace")):
        assert WORD not in told.replace(digest, "")
        assert digest not in told
