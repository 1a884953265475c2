"""The forms in which clients ask, each turned into the one that vLLM takes. docs/dialects.md has them in a table.

`messages` decides: OpenAI's list, the object {system, user} of Enterprise-RAG 1.x, GenAIComps' string; a list with a
field that only Enterprise-RAG knows is of its 2.x. What vLLM knows passes, unknown fields included; what it would
ignore is named in the reply's X-Berth-Warning header.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import orjson

from llm_service.errors import BadRequest
from llm_service.forms.fields import (
    ALIASES,
    Fields,
    fill_defaults,
    not_applied,
    rename,
    rename_aliases,
    turns_of_list,
    turns_of_object,
)
from llm_service.port.limits import json_of

# Defaults that reached the engine in Enterprise-RAG 1.2-2.1 and in GenAIComps 1.0-1.5. The top_k, repetition_penalty
# and typical_p of Enterprise-RAG never did, so those count here only when a client sends them.
OPEA_DEFAULTS: Mapping[str, float] = {"temperature": 0.01, "top_p": 0.95}
TEXT_DEFAULTS: Mapping[str, float] = {"temperature": 0.01}

_OPEA_ONLY = ("input_guardrail_params", "output_guardrail_params", "data")
_OPEA_NAMES = frozenset((*_OPEA_ONLY, *(alias for _, alias in ALIASES)))
_IGNORED = {
    "typical_p": "vLLM has no such setting",
    "input_guardrail_params": "guardrails are another service",
}
# GenAIComps made a prompt of these before it asked the engine.
_TEXT_IGNORED = dict.fromkeys(("documents", "chat_template"), "a string goes to the engine as it is")


class Form(StrEnum):
    """Who wrote the request."""

    OPENAI = "openai"
    OPEA = "opea"
    TEXT = "genaicomps"


@dataclass(slots=True)  # not frozen, which would make it several times as slow to make
class Call:
    """One request, understood."""

    form: Form
    stream: bool
    """Whether the engine is asked for a stream, and the client gets one."""
    fields: Fields
    """What goes to the engine, but for a model that the client left out."""
    raw: bytes | None
    """The client's own bytes when they can go to the engine as they are."""
    prompt: str = ""
    """The user's text, which OPEA's reply repeats."""
    echo: Fields = field(default_factory=dict)
    """Fields of OPEA's request that its reply repeats."""
    warnings: tuple[str, ...] = ()
    default_max_tokens: int | None = None
    path: str | None = None
    """The engine's path, when it is another than the client's."""
    newer: bool = False
    """Whether it is of Enterprise-RAG 2.x, whose streams were JSON from the first and whose replies list choices."""

    @property
    def model(self) -> str | None:
        """The model that the client named, if any."""
        named = self.fields.get("model")
        return named if isinstance(named, str) and named else None

    @property
    def needs_model(self) -> bool:
        """Whether the service has to name the model."""
        return self.fields.get("model") in (None, "")

    @property
    def trailer(self) -> bytes:
        """What follows the end of a stream: the documents that came with a request in OPEA's form."""
        data = self.echo.get("data")
        if data is None:
            return b""
        return b"json: " + orjson.dumps({"reranked_docs": data.get("reranked_docs", [])}) + b"\n\n"

    def engine_body(self, model: str, window: int | None) -> bytes:
        """Return the bytes for the engine, with the model filled in if the client named none.

        `window` is the model's context in tokens: the engine refuses a limit above it, so a default that nobody asked
        for must stay below.
        """
        if self.raw is not None:
            if not self.needs_model:
                return self.raw
            if self.fields and "model" not in self.fields:  # all else stays as the client wrote it
                return b'{"model":' + orjson.dumps(model) + b"," + self.raw.lstrip()[1:]
        body = dict(self.fields)
        if self.needs_model:
            body["model"] = model
        if self.default_max_tokens is not None:
            if window is None or window > self.default_max_tokens:
                body["max_tokens"] = self.default_max_tokens
            elif self.path is not None:
                body["max_tokens"] = window // 2  # left out, /v1/completions would end after 16
        return orjson.dumps(body)


def read(raw: bytes) -> Fields:
    """Return the JSON object in a body; raise BadRequest when there is none."""
    fields = json_of(raw)
    if not isinstance(fields, dict):
        raise BadRequest("The body must be a JSON object.")
    return fields


def passed(fields: Fields, raw: bytes, *, disable_streaming: bool = False) -> Call:
    """Understand a request that goes to the engine as it is, on another path than that of chat."""
    stream = fields.get("stream") is True
    _refuse_stream(stream and disable_streaming)
    return Call(Form.OPENAI, stream, fields, raw)


def form_of(fields: Fields) -> Form:
    """Say in which form a request is written; raise BadRequest when `messages` fits none."""
    messages = fields.get("messages")
    if isinstance(messages, list):
        return Form.OPENAI if _OPEA_NAMES.isdisjoint(fields) else Form.OPEA
    if isinstance(messages, dict):
        return Form.OPEA
    if isinstance(messages, str):
        return Form.TEXT
    raise BadRequest(
        'messages must be a list of messages, an object {"system": …, "user": …}, or a string.', param="messages"
    )


def parse(
    form: Form, fields: Fields, raw: bytes, *, disable_streaming: bool = False, output_guard: bool = False
) -> Call:
    """Understand a request of the given form; raise BadRequest with one sentence when it cannot be used.

    With `output_guard`, requests in OPEA's form are answered whole, with their wish for a stream repeated: a service
    behind this one reads the answer, and streams it to the user.
    """
    warnings = not_applied(fields, _IGNORED)
    if form is Form.OPENAI:
        stream = _whether(fields.get("stream"))
        _refuse_stream(bool(stream) and disable_streaming)
        return Call(form, bool(stream), fields, raw, warnings=warnings)
    edited = dict(fields)
    rename_aliases(edited)
    stream = _whether(edited.get("stream"))
    for name in (*_OPEA_ONLY, *_IGNORED):
        edited.pop(name, None)
    if form is Form.TEXT:
        edited["stream"] = _allowed(bool(stream), edited, disable_streaming)
        return _text(fields, edited, warnings)
    asked = stream is not False
    edited["stream"] = _allowed(asked, edited, disable_streaming or output_guard)
    return _opea(fields, edited, warnings, asked)


def _allowed(asked: bool, edited: Fields, switched_off: bool) -> bool:
    """Say whether there will be a stream; without one, take what only a stream may have out of the fields."""
    if asked and switched_off:
        edited.pop("stream_options", None)
    return asked and not switched_off


def _opea(fields: Fields, edited: Fields, warnings: tuple[str, ...], asked: bool) -> Call:
    newer = isinstance(fields["messages"], list)
    edited["messages"], prompt = turns_of_list(fields["messages"]) if newer else turns_of_object(fields["messages"])
    if not newer and (edited.get("n") not in (None, 1) or edited.get("tools") is not None):
        raise BadRequest("OPEA's reply holds one text: n above 1 and tools need messages as OpenAI's list.", param="n")
    default = fill_defaults(edited, OPEA_DEFAULTS)
    data = fields.get("data")
    echo = {
        "stream" if newer else "streaming": asked,
        "output_guardrail_params": fields.get("output_guardrail_params"),
        "data": data if isinstance(data, dict) else None,
    }
    return Call(Form.OPEA, edited["stream"], edited, None, prompt, echo, warnings, default, newer=newer)


def _text(fields: Fields, edited: Fields, warnings: tuple[str, ...]) -> Call:
    """GenAIComps gave a string to /v1/completions: its sender has made the whole prompt and reads `choices[0].text`."""
    if edited.pop("prompt", None) is not None:
        raise BadRequest("messages is the prompt already; send no other.", param="prompt")
    edited["prompt"] = edited.pop("messages")
    rename(edited, "max_tokens", "max_completion_tokens")
    warnings += not_applied(fields, _TEXT_IGNORED)
    for name in _TEXT_IGNORED:
        edited.pop(name, None)
    default = fill_defaults(edited, TEXT_DEFAULTS)
    return Call(Form.TEXT, edited["stream"], edited, None, "", {}, warnings, default, "/v1/completions")


def _whether(stream: object) -> bool | None:
    if stream is None or isinstance(stream, bool):
        return stream
    raise BadRequest("stream (or streaming) must be true or false.", param="stream")


def _refuse_stream(unwanted: bool) -> None:
    if unwanted:
        raise BadRequest("Streaming is switched off here (LLM_DISABLE_STREAMING); send stream: false.", param="stream")
