"""Replies too large to be held: they go on as they come, and break off where the engine does."""

from collections.abc import Callable

import httpx
import orjson
import pytest

from llm_service.large import HELD_BYTES, MOST_HELD_BYTES
from tests.unit.service.door import OPEA_BODY, OPENAI_BODY, Door

OpenDoor = Callable[..., Door]
USAGE = b'"usage": {"prompt_tokens": 12, "completion_tokens": 34}}'


def reply_of(size: int) -> bytes:
    start = b'{"choices": [{"message": {"content": "'
    return start + b"a" * (size - len(start) - len(USAGE) - 6) + b'"}}], ' + USAGE


@pytest.mark.parametrize("size", [HELD_BYTES, HELD_BYTES + 1, 3 * MOST_HELD_BYTES])
def test_a_reply_of_any_size_is_the_engines_own(door: Door, size: int) -> None:
    door.engine.knobs.whole_body = reply_of(size)
    reply = door.chat(OPENAI_BODY)
    assert (reply.status_code, reply.headers["content-length"]) == (200, str(len(reply.content)))
    assert reply.content == door.engine.knobs.whole_body


def test_its_tokens_are_counted(open_door: OpenDoor) -> None:
    door = open_door()
    door.engine.knobs.whole_body = reply_of(3 * HELD_BYTES)
    door.chat(OPENAI_BODY)
    told = [line for line in door.client.get("/metrics").text.splitlines() if line.startswith("berth_tokens_total{")]
    assert sorted(float(line.rsplit(" ", 1)[1]) for line in told) == [12, 34]


def test_one_that_breaks_off_is_never_taken_for_whole(door: Door) -> None:
    door.engine.knobs.whole_body = reply_of(4 * HELD_BYTES)
    door.engine.knobs.cut = 3 * HELD_BYTES
    with pytest.raises(httpx.RemoteProtocolError):
        door.chat(OPENAI_BODY)


def test_one_that_is_held_may_still_break_off_and_is_an_error(door: Door) -> None:
    door.engine.knobs.whole_body = reply_of(HELD_BYTES)
    door.engine.knobs.cut = HELD_BYTES // 2
    assert door.chat(OPENAI_BODY).status_code == 502


def test_one_that_has_to_be_rewritten_may_be_large_but_not_endless(door: Door) -> None:
    door.engine.knobs.whole_body = reply_of(4 * HELD_BYTES)
    body = {**OPEA_BODY, "stream": False, "streaming": False}
    assert len(orjson.loads(door.chat(body).content)["text"]) > 3 * HELD_BYTES
    door.engine.knobs.whole_body = reply_of(MOST_HELD_BYTES + 2)
    reply = door.chat(body)
    assert (reply.status_code, "larger than 16 MiB" in reply.text) == (502, True)
