"""Server-sent events: passing them on whole, and the shapes in which older clients want them."""

from typing import Any

import orjson

from llm_service.errors import EngineLost, ServiceError, anthropic_body, openai_body
from llm_service.records.usage import TAIL_BYTES

LARGEST_EVENT = 16 * 1024**2  # the last event of /v1/responses repeats the whole answer
_DONE = b"[DONE]"


def _end_of_last_event(data: bytes) -> int:
    unix = data.rfind(b"\n\n")
    windows = data.rfind(b"\r\n\r\n")
    return max(unix + 2 if unix >= 0 else 0, windows + 4 if windows >= 0 else 0)


class WholeEvents:
    """Hands out only whole events, so that an error event after a break never lands inside another one."""

    def __init__(self) -> None:
        self.held = b""
        """What has come of an event that is not yet whole."""
        self.before = b""
        """What went before `last`, or the end of it."""
        self.last = b""
        """The whole events that came together last."""

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes of the engine's; return those that complete an event."""
        if self.held:
            chunk = self.held + chunk
            self.held = b""
        if not chunk.endswith(b"\n\n"):
            end = _end_of_last_event(chunk)
            self.held = chunk[end:]
            if len(self.held) > LARGEST_EVENT:
                raise EngineLost(f"The engine sent an event of more than {LARGEST_EVENT // 1024**2} MiB.")
            chunk = chunk[:end]
        if chunk:
            self.before, self.last = self.last, chunk
        return chunk

    @property
    def tail(self) -> bytes:
        """The end of what has come, so far as it is whole: at least the last event."""
        return self.before[-TAIL_BYTES:] + self.last

    @property
    def none_yet(self) -> bool:
        """Whether not a byte has come."""
        return not (self.held or self.last)

    @property
    def ends_in_error(self) -> bool:
        """Whether the last event was an error: a service like this one, nearer to the engine, has lost it."""
        return not self.held and self._last_event().startswith((b'data: {"error"', b"event: error\n"))

    def ends_with(self, marks: tuple[bytes, ...]) -> bool:
        """Whether the last event begins with one of these, so that the stream is complete; without marks, any does."""
        if self.held or not marks:
            return not self.held
        return self._last_event().startswith(marks)

    def _last_event(self) -> bytes:
        return self.last.replace(b"\r\n", b"\n").rstrip().rpartition(b"\n\n")[2]


def error_event(error: ServiceError, dialect: str | None) -> bytes:
    """Return an error as an event; the clients of OpenAI and of Anthropic raise when they see theirs."""
    if dialect == "anthropic":
        return b"event: error\ndata: " + anthropic_body(error) + b"\n\n"
    return b"data: " + openai_body(error) + b"\n\n"


class Literals:
    """OpenAI's chunks rewritten as Python literals of the text, as OPEA services sent before they sent JSON."""

    def __init__(self, *, as_bytes: bool) -> None:
        self._as_bytes = as_bytes

    def feed(self, events: bytes) -> bytes:
        """Take whole events; return them rewritten. Errors stay JSON, comments are kept."""
        return b"".join(self._rewrite(event) for event in events.replace(b"\r\n", b"\n").split(b"\n\n") if event)

    def _rewrite(self, event: bytes) -> bytes:
        if not event.startswith(b"data:"):
            return event + b"\n\n"
        payload = event[5:].strip()
        if payload == _DONE:
            return b"data: [DONE]\n\n"
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return event + b"\n\n"
        if not isinstance(chunk, dict) or "error" in chunk:
            return event + b"\n\n"
        text = delta_text(chunk)
        if not text:
            return b""
        literal = repr(text.encode()) if self._as_bytes else repr(text)
        return f"data: {literal}\n\n".encode()


def delta_text(chunk: dict[str, Any]) -> str:
    """Return the text of a streamed chunk, of chat or of /v1/completions; empty when it carries none."""
    return _text(chunk, "delta")


def message_text(completion: dict[str, Any]) -> str:
    """Return the text of a whole completion; empty when there is none, as for a refusal or a tool call."""
    return _text(completion, "message")


def _text(completion: dict[str, Any], part: str) -> str:
    try:
        choice = completion["choices"][0]
        content = choice["text"] if "text" in choice else choice[part]["content"]
    except (KeyError, IndexError, TypeError):
        return ""
    return content if isinstance(content, str) else ""
