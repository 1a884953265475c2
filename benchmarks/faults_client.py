"""A client that looks closely: one request on a connection of its own, and what became of it."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

ANSWER = "Deep learning isn't magic: it fits many layers to data.\n"  # what the stub engine says


@dataclass
class Outcome:
    """What a client saw.

    right: the whole answer. told: an error with its reason, as a reply or as one event of a stream without [DONE].
    refused: no connection was taken. wrong: anything else, above all a clean end of half an answer.
    """

    kind: str
    status: int
    detail: str
    began: float
    ended: float

    @property
    def ms(self) -> float:
        """How long it took."""
        return (self.ended - self.began) * 1000


def request(stream: bool, **fields: Any) -> bytes:
    """A chat's bytes."""
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}], "stream": stream, **fields}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def ask(port: int, stream: bool, begun: asyncio.Event | None = None) -> Outcome:
    """Send one chat and judge what comes; `begun` is set at the first piece of the answer."""
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        return Outcome("refused", 0, type(error).__name__, began, time.monotonic())
    raw, broken = b"", ""
    try:
        writer.write(request(stream))
        while part := await reader.read(65536):
            raw += part
            if begun is not None and b'"content"' in raw:
                begun.set()
    except ConnectionError as error:
        broken = type(error).__name__
    finally:
        writer.close()
    ended = time.monotonic()
    kind, status, detail = _judge(raw, broken, stream)
    return Outcome(kind, status, detail, began, ended)


def _judge(raw: bytes, broken: str, stream: bool) -> tuple[str, int, str]:
    head, _, body = raw.partition(b"\r\n\r\n")
    if not raw:
        # A connection that was taken and closed without a word: what a client may send again without doubt.
        return "wrong", 0, broken or "closed without an answer"
    status = int(head.split(b" ", 2)[1])
    lines = head.lower().split(b"\r\n")
    if b"transfer-encoding: chunked" in lines:
        body, whole = _unchunked(body)
    else:
        whole = any(line == b"content-length: %d" % len(body) for line in lines)
    if not whole:
        return "wrong", status, broken or "cut short"
    if status != 200:
        told = b'"error"' in body or b'"detail"' in body
        return ("told" if told else "wrong"), status, body[:200].decode(errors="replace")
    if not stream:
        return ("right" if _text(body) == ANSWER else "wrong"), status, body[:200].decode(errors="replace")
    return _judge_events(body)


def _judge_events(body: bytes) -> tuple[str, int, str]:
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    done = events[-1:] == [b"[DONE]"]
    errors = [event for event in events if event.startswith(b'{"error"')]
    text = "".join(_piece(event) for event in events if event not in errors and event != b"[DONE]")
    if done and not errors:
        return ("right" if text == ANSWER else "wrong"), 200, text[:200]
    if len(errors) == 1 and errors[0] == events[-1] and ANSWER.startswith(text):
        return "told", 200, errors[0][:200].decode(errors="replace")
    return "wrong", 200, f"{len(events)} events, {len(errors)} errors, [DONE]: {done}"


def _piece(event: bytes) -> str:
    try:
        return json.loads(event)["choices"][0]["delta"].get("content") or ""
    except (ValueError, KeyError, IndexError):
        return "\0"  # never part of the answer


def _text(body: bytes) -> str | None:
    try:
        text: str = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError):
        return None
    return text


def _unchunked(data: bytes) -> tuple[bytes, bool]:
    """The chunks' content, and whether the last one came."""
    parts: list[bytes] = []
    while data:
        size, _, data = data.partition(b"\r\n")
        try:
            length = int(size, 16)
        except ValueError:
            break
        if length == 0:
            return b"".join(parts), data == b"\r\n"
        if len(data) < length + 2:
            break
        parts.append(data[:length])
        data = data[length + 2 :]
    return b"".join(parts), False
