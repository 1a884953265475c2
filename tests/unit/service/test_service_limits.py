"""JSON that is nested too deeply, or that is none; and the files that the service may open."""

import resource
from typing import Any

import pytest

from llm_service.errors import BadRequest
from llm_service.port import limits
from llm_service.port.limits import MAX_DEPTH, json_of
from tests.unit.service.door import CHAT, OPENAI_BODY, Door

DEEP = "more than 128 arrays and objects in each other"


def nested(depth: int, *, objects: bool = False) -> bytes:
    before, after = (b'{"a":', b"}") if objects else (b"[", b"]")
    return before * depth + b"1" + after * depth


@pytest.mark.parametrize("objects", [False, True])
def test_values_may_be_nested_up_to_the_limit(objects: bool) -> None:
    assert json_of(nested(MAX_DEPTH, objects=objects))
    for depth in (MAX_DEPTH + 1, 1000, 2000, 10_000, 1_000_000):
        with pytest.raises(BadRequest, match=DEEP):
            json_of(nested(depth, objects=objects))


def test_many_brackets_side_by_side_are_no_depth() -> None:
    assert len(json_of(b"[" + b"[{}]," * 1000 + b"[]]")) == 1001
    assert json_of(b'"' + b"[{" * 1000 + b'"') == "[{" * 1000


NO_JSON = [
    b"NaN",
    b"[Infinity]",
    b"-Infinity",
    b"1e999",
    b'"\xff"',
    b'"\\ud800"',
    b"\xef\xbb\xbf{}",
    b"",
    b"{",
    b"{}{}",
]


@pytest.mark.parametrize("raw", NO_JSON)
def test_what_only_some_parsers_take_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="not valid JSON"):
        json_of(raw)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/v1/messages", "/v1/responses"])
def test_ten_thousand_brackets_are_400_with_one_sentence_on_every_path(door: Door, path: str) -> None:
    body = b'{"model": "stub-model", "x": ' + nested(10_000) + b"}"
    reply = door.client.post(path, content=body)
    assert reply.status_code == 400
    assert DEEP in reply.json()["error"]["message"]
    assert not door.engine.records
    assert door.chat(OPENAI_BODY).status_code == 200


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ((1024, 524288), (65536, 524288)),
        ((1024, 4096), (4096, 4096)),
        ((1024, resource.RLIM_INFINITY), (65536, resource.RLIM_INFINITY)),
        ((100_000, 200_000), (100_000, 200_000)),
    ],
)
def test_the_limit_of_open_files_is_raised_and_half_of_it_is_for_clients(
    monkeypatch: pytest.MonkeyPatch, now: tuple[int, int], then: tuple[int, int]
) -> None:
    held: list[Any] = [now]
    monkeypatch.setattr(resource, "getrlimit", lambda _: held[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: held.append(both))
    assert limits.most_connections() == then[0] // 2
    assert held[-1] == then
