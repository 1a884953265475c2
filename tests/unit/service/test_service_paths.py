"""The allow-list: what leads to the engine and arrives there as it was sent, and what does not exist."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from llm_service.app import create_app
from llm_service.config.loading import SettingsError, load
from llm_service.errors import EngineLost
from llm_service.forms.events import LARGEST_EVENT, WholeEvents
from llm_service.paths import Kind, Paths
from tests.support.stub_engine import StubEngine
from tests.unit.service.door import CHAT, OPENAI_BODY, Door, both_ready

OpenDoor = Callable[..., Door]
RAW = b'{"model": "stub-model",  "input": "a", "prompt": "a", "unknown": {"a": [1.0]}}'
WHOLE = b'{"object": "any",  "usage": {"prompt_tokens": 3, "completion_tokens": 5}}'
EVENTS = {
    "/v1/completions": b'data: {"choices":[{"text":"a"}]}\n\ndata: [DONE]\n\n',
    "/v1/responses": b'event: response.created\ndata: {}\n\nevent: response.completed\ndata: {"type":"x"}\n\n',
    "/v1/messages": b'event: message_start\ndata: {}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n',
    "/v1/audio/transcriptions": b"data: {}\n\ndata: [DONE]\n\n",
}
POSTED = [route.template for method, route in Paths().relayed() if method == "POST" and "{" not in route.template]


@pytest.mark.parametrize("path", [path for path in POSTED if path != CHAT])
def test_bytes_pass_both_ways_on_every_path(door: Door, path: str) -> None:
    door.engine.knobs.others[path] = WHOLE
    reply = door.client.post(path + "?a=%20b", content=RAW, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (reply.status_code, reply.content) == (200, WHOLE)
    seen = door.engine.records[-1]
    assert (seen.method, seen.path, seen.body) == ("POST", path + "?a=%20b", RAW)
    audio = path.startswith("/v1/audio/")
    assert seen.headers["content-type"] == ("multipart/form-data; boundary=b" if audio else "application/json")


@pytest.mark.parametrize("path", EVENTS)
def test_streams_pass_as_they_are(door: Door, path: str) -> None:
    door.engine.knobs.others[path] = EVENTS[path]
    reply = door.client.post(path, json={"model": "stub-model", "stream": True})
    assert (reply.status_code, reply.content) == (200, EVENTS[path])
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", EVENTS)
def test_a_stream_without_its_last_event_ends_in_an_error(door: Door, path: str) -> None:
    first = EVENTS[path].partition(b"\n\n")[0] + b"\n\n"
    door.engine.knobs.others[path] = first
    reply = door.client.post(path, json={"model": "stub-model", "stream": True})
    assert reply.content.startswith(first)
    said = reply.content.removeprefix(first)
    if path == "/v1/messages":
        event, _, data = said.decode().strip().partition("\n")
        assert (event, json.loads(data.removeprefix("data: "))["error"]["type"]) == ("event: error", "api_error")
    else:
        assert json.loads(said.removeprefix(b"data: "))["error"]["type"] == "EngineError"


def test_a_kept_response_is_fetched_and_cancelled_by_its_name(door: Door) -> None:
    door.engine.knobs.others = {"/v1/responses/resp_1-a": WHOLE, "/v1/responses/resp_1-a/cancel": WHOLE}
    for method, path in [
        ("GET", "/v1/responses/resp_1-a"),
        ("GET", "/v1/responses/resp_1-a?stream=false&starting_after=3"),
        ("DELETE", "/v1/responses/resp_1-a"),
        ("POST", "/v1/responses/resp_1-a/cancel"),
    ]:
        assert door.client.request(method, path).content == WHOLE
        seen = door.engine.records[-1]
        assert (seen.method, seen.path, seen.body) == (method, path, b"")


@pytest.mark.parametrize(
    "path",
    [
        *("/invocations", "/ping", "/tokenize", "/detokenize", "/v1/load_lora_adapter", "/v1/realtime", "/sleep"),
        *("/v1/chat/completions/render", "/v1/completions/render", "/server_info", "/collective_rpc", "/load"),
        *("/v1/models/", "//v1/models", "/v1//models", "/v1/chat/completions/", "/docs", "/V1/models", "/v1/../load"),
        *(
            "/v1/responses/",
            "/v1/responses/a/b",
            "/v1/responses/../load",
            "/v1/responses/%2e%2e",
            "/v1/responses/a%2fb",
        ),
        *("/v1/responses/a;b", "/v1/responses/" + "a" * 129),
    ],
)
def test_nothing_else_is_there(door: Door, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        reply = door.client.request(method, path)
        assert (reply.status_code, reply.json()["error"]["type"]) == (404, "NotFoundError")
    assert not door.engine.records


@pytest.mark.parametrize(
    ("path", "allowed"), [(CHAT, "POST"), ("/v1/models", "GET"), ("/v1/responses/a", "GET, DELETE")]
)
def test_a_wrong_method_is_405_and_names_the_right_ones(door: Door, path: str, allowed: str) -> None:
    reply = door.client.put(path)
    assert (reply.status_code, reply.headers["allow"], reply.json()["error"]["code"]) == (405, allowed, 405)
    assert not door.engine.records


def test_every_route_of_the_application_is_in_the_list() -> None:
    listed = Paths()
    for route in create_app(load({})).app.routes:
        path = str(getattr(route, "path", ""))
        found = listed.find("GET", path, path.encode())
        assert found is not None, path
        assert found.kind is Kind.LOCAL


def test_the_page_lists_every_way_to_the_engine() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/service.md").read_text(encoding="utf-8")
    rows = [row for row in page.partition("## Paths")[2].partition("\n## ")[0].splitlines() if row.startswith("|")]
    for method, route in Paths().relayed():
        row = next((row for row in rows if f"{route.template}`" in row), "")
        assert method in row, route.template


def test_settings_open_further_paths_of_the_engine(open_door: OpenDoor) -> None:
    door = open_door(LLM_OPEN_PATHS="/tokenize, /v1/systemone")
    door.engine.knobs.others = {"/tokenize": b'{"count": 1}'}
    assert door.client.post("/tokenize", content=RAW).json() == {"count": 1}
    assert (door.engine.records[-1].body, door.engine.records[-1].path) == (RAW, "/tokenize")
    assert door.client.post("/detokenize", content=RAW).status_code == 404


@pytest.mark.parametrize("paths", ["tokenize", "/a/../b", "/tokenize,", "/a?b", "/a%2fb", "/a//b"])
def test_what_is_no_plain_path_cannot_be_opened(paths: str) -> None:
    with pytest.raises(SettingsError, match="LLM_OPEN_PATHS"):
        load({"LLM_OPEN_PATHS": paths})


def test_a_route_that_the_engine_does_not_have_is_404_in_the_envelope(door: Door) -> None:
    reply = door.client.post("/v1/embeddings", content=RAW)
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "NotFoundError")
    assert "/v1/embeddings" in reply.json()["error"]["message"]


def test_the_engine_sends_no_client_elsewhere(door: Door) -> None:
    door.engine.knobs.others["/v1/embeddings"] = b""
    door.engine.knobs.status = 307
    assert door.client.post("/v1/embeddings", content=RAW).status_code == 502


def test_an_event_without_end_does_not_fill_the_memory() -> None:
    events, piece = WholeEvents(), b"a" * (LARGEST_EVENT // 4)
    assert [events.feed(piece) for _ in range(4)] == [b""] * 4
    with pytest.raises(EngineLost, match="16 MiB"):
        events.feed(piece)


def test_errors_of_ours_have_anthropics_shape_on_its_paths(door: Door) -> None:
    reply = door.client.post("/v1/messages", content=b"[]")
    assert reply.status_code == 400
    assert reply.json() == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "The body must be a JSON object."},
    }


def test_the_openai_client_raises_when_a_response_is_lost_in_its_stream(door: Door) -> None:
    door.engine.knobs.others["/v1/responses"] = EVENTS["/v1/responses"].partition(b"\n\n")[0] + b"\n\n"
    client = openai.OpenAI(base_url=f"{door.service.url}/v1", api_key="unused", max_retries=0)
    with pytest.raises(openai.APIError, match="before the answer was complete"):
        list(client.responses.create(model="stub-model", input="a", stream=True))
    client.close()


@pytest.mark.parametrize(("body", "times"), [({}, 1), ({"store": True}, 1), ({"store": False}, 2)])
@pytest.mark.usefixtures("quick_pool")
def test_a_request_that_the_engine_would_keep_is_never_sent_twice(
    pooled: OpenDoor, two: tuple[StubEngine, StubEngine], body: dict[str, Any], times: int
) -> None:
    door = pooled(*two)
    both_ready(door)
    for engine in two:
        engine.knobs.others["/v1/responses"] = WHOLE
        engine.knobs.die = "before headers"
    assert door.client.post("/v1/responses", json={"model": "stub-model", **body}).status_code == 502
    assert sum(record.method == "POST" for engine in two for record in engine.records) == times


@pytest.mark.parametrize("path", [path for path in POSTED if Paths().find("POST", path, b"").kind is Kind.JSON])  # type: ignore[union-attr]
def test_a_missing_model_is_filled_in(door: Door, path: str) -> None:
    door.engine.knobs.others[path] = WHOLE
    door.client.post(path, json={"input": "a"})
    assert door.engine.records[-1].json == {"input": "a", "model": "stub-model"}


def test_the_client_says_nothing_to_the_engine_but_its_body_and_the_trace(door: Door) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    told: dict[str, Any] = {
        **{"Authorization": "Bearer secret", "X-Api-Key": "secret", "Api-Key": "secret", "Cookie": "a=secret"},
        **{"X-Forwarded-For": "secret", "Proxy-Authorization": "secret", "Connection": "x-hop", "X-Hop": "secret"},
        **{"Origin": "http://secret", "User-Agent": "secret", "X-Data-Parallel-Rank": "secret", "TE": "secret"},
        **{"Traceparent": trace, "Tracestate": "a=b", "Anthropic-Version": "2023-06-01", "Accept-Encoding": "gzip"},
    }
    door.chat(OPENAI_BODY, headers=told)
    seen = door.engine.chats[-1].headers
    assert "secret" not in str(seen)
    assert (seen["traceparent"], seen["tracestate"], seen["anthropic-version"]) == (trace, "a=b", "2023-06-01")
    assert seen["accept-encoding"] == "identity"
    assert set(seen) <= {
        *("host", "content-type", "content-length", "accept", "accept-encoding", "x-request-id"),
        *("traceparent", "tracestate", "anthropic-version"),
    }


def test_the_engine_says_nothing_about_itself_to_the_client(door: Door) -> None:
    door.engine.knobs.cookie = "a=secret"
    for body in (OPENAI_BODY, {**OPENAI_BODY, "stream": True}):
        reply = door.chat(body)
        assert not {"server", "set-cookie", "connection", "keep-alive"} & set(reply.headers)
        assert len(reply.headers.get_list("date")) <= 1
