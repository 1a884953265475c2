"""Every line of the table in docs/dialects.md, sent through the running service."""

import ast
import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llm_service.config.loading import load
from tests.support.stub_engine import StubEngine
from tests.support.stub_knobs import TEXT, Record
from tests.support.stub_messages import chunk, whole
from tests.unit.service.door import Door, Running
from tests.unit.service.streams import events

PAGE = Path(__file__).resolve().parents[3] / "docs" / "dialects.md"
_SAID = re.compile(r"`([^`]+)`")
_OTHER_WHOLE = b'{ "object":"other", "new_in_vllm": 1.0 }'
_OTHER_STREAMS = {
    "/v1/responses": b'event: response.completed\ndata: {"type":"response.completed"}\n\n',
    "/v1/messages": b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    who: str
    sent: str
    engine: str
    streams: str
    whole: str
    stream: str
    errors: str

    @property
    def path(self) -> str:
        return self.code(self.sent)[0].removeprefix("POST ")

    @property
    def body(self) -> str:
        return self.code(self.sent)[1]

    @staticmethod
    def code(cell: str) -> list[str]:
        return _SAID.findall(cell)


def rows() -> list[Row]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [Row(*row) for row in cells[2:] if len(row) == 7]


class Engine(StubEngine):
    """A stub engine that answers on every path."""

    async def _answer(self, record: Record, writer: asyncio.StreamWriter) -> bool:
        if record.method != "POST" or record.path in ("/v1/chat/completions", "/v1/completions"):
            return await super()._answer(record, writer)
        if not record.json.get("stream"):
            return whole(writer, 200, _OTHER_WHOLE)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk(writer, _OTHER_STREAMS[record.path])
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def opened(engine: StubEngine, **settings: str) -> Door:
    return Door(engine, Running(load({"LLM_VLLM_ENDPOINT": engine.url, **settings})))


@pytest.fixture(scope="module")
def doors() -> Iterator[dict[str, Door]]:
    """Doors by stream format in front of one engine; "none" has no engine."""
    engine, absent = Engine(), StubEngine()
    engine.knobs.models = ["M"]
    engine.listen()
    made = {form: opened(engine, LLM_STREAM_FORMAT=form) for form in ("openai", "repr", "bytes-repr")}
    made["none"] = opened(absent)
    yield made
    for door in made.values():
        door.client.close()
    engine.close()
    absent.close()
    for door in made.values():
        door.service.stop()


def post(door: Door, row: Row, **more: Any) -> Any:
    body = json.dumps({**json.loads(row.body), **more}) if more else row.body
    return door.client.post(row.path, content=body)


def test_the_table_has_every_dialect() -> None:
    named = " ".join(row.who for row in rows())
    for dialect in ("OpenAI", "Anthropic", "Enterprise-RAG 1.2 to 1.5", "Enterprise-RAG 2.x", "GenAIComps"):
        assert dialect in named


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.who)
def test_the_engine_gets_what_the_table_says(doors: dict[str, Door], row: Row) -> None:
    door = doors["openai"]
    reply = post(door, row)
    assert reply.status_code == 200
    asked = [record for record in door.engine.records if record.method == "POST"][-1]
    if row.engine.startswith("the same bytes"):
        put = Row.code(row.engine)
        assert asked.body.decode() == (f"{{{put[0].replace(': ', ':')},{row.body[1:]}" if put else row.body)
        assert asked.path == row.path
    else:
        target, body = Row.code(row.engine)
        assert (f"POST {asked.path}", asked.json) == (target, json.loads(body))
    streamed = reply.headers["content-type"].startswith("text/event-stream")
    assert row.streams == ("yes" if streamed else "no")


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.who)
def test_a_whole_reply_is_what_the_table_says(doors: dict[str, Door], row: Row) -> None:
    door = doors["openai"]
    reply = post(door, row, stream=False)
    if row.whole == "the engine's bytes":
        direct = door.client.post(f"{door.engine.url}{told(door).path}", content=told(door).body)
        assert reply.content == direct.content
        return
    keys = set(Row.code(row.whole))
    more = {"object", "created", "model", "usage"} if "other fields" in row.whole else set()
    assert reply.json().keys() == keys | more
    assert (reply.json()["text"], reply.json()["prompt"]) == ("".join(TEXT), "U")


def told(door: Door) -> Record:
    return [record for record in door.engine.records if record.method == "POST"][-1]


@pytest.mark.parametrize("form", ["openai", "repr", "bytes-repr"])
@pytest.mark.parametrize("row", [row for row in rows() if row.stream != "none"], ids=lambda row: row.who)
def test_a_stream_is_what_the_table_says(doors: dict[str, Door], row: Row, form: str) -> None:
    door = doors[form]
    reply = post(door, row, stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    if row.stream == "the engine's bytes" or form == "openai":
        direct = door.client.post(f"{door.engine.url}{told(door).path}", content=told(door).body)
        assert reply.content == direct.content
        return
    assert Row.code(row.stream) == ["LLM_STREAM_FORMAT"]
    *literals, last = events(reply.content)
    pieces = [ast.literal_eval(literal) for literal in literals]
    assert pieces == [text.encode() if form == "bytes-repr" else text for text in TEXT]
    assert last == "[DONE]"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.who)
def test_errors_have_the_keys_that_the_table_says(doors: dict[str, Door], row: Row) -> None:
    reply = post(doors["none"], row)
    assert reply.status_code == 503
    assert sorted(reply.json()) == sorted(Row.code(row.errors))


def test_the_marks_of_enterprise_rags_list_are_those_that_the_table_names(doors: dict[str, Door]) -> None:
    [row] = [row for row in rows() if "Enterprise-RAG 2.x" in row.who]
    messages = json.loads(row.body)["messages"]
    values = {"max_new_tokens": 9, "streaming": False, "data": {}}
    marks = Row.code(row.who)
    assert len(marks) == 5
    for mark in marks:
        reply = doors["openai"].chat({"messages": messages, "stream": False, mark: values.get(mark)})
        assert "prompt" in reply.json(), mark
    assert "prompt" not in doors["openai"].chat({"messages": messages, "top_k": 10}).json()


def test_the_fields_that_have_no_effect_are_those_that_the_page_names(doors: dict[str, Door]) -> None:
    [said] = re.findall(r"`X-Berth-Warning` names it\..*?(?=\n- )", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    named = Row.code(said.partition("names it.")[2])
    assert len(named) == 4
    reply = doors["openai"].chat({"messages": "U", **dict.fromkeys(named, "x")})
    assert [note.split()[0] for note in reply.headers["x-berth-warning"].split("; ")] == named
