"""The forms in which clients ask, each turned into the one that vLLM takes.

`messages` decides: OpenAI's list, OPEA's object {system, user}, GenAIComps' string. What vLLM knows passes, unknown
fields included; what it would ignore is named in the reply's X-Berth-Warning header.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from llm_service.errors import BadRequest

Fields = dict[str, Any]

# Defaults of Enterprise-RAG 1.2-1.5 that reached the engine there. Its top_k, repetition_penalty and typical_p
# defaults never did, so those count here only when a client sends them.
OPEA_DEFAULTS: Mapping[str, float] = {"temperature": 0.01, "top_p": 0.95}
OPEA_MAX_TOKENS = 1024

_ALIASES = (("max_tokens", "max_new_tokens"), ("stream", "streaming"))
_OPEA_ONLY = ("input_guardrail_params", "output_guardrail_params", "data")
_IGNORED = {
    "typical_p": "vLLM has no such setting",
    "input_guardrail_params": "guardrails are another service",
}


class Form(StrEnum):
    """Who wrote the request."""

    OPENAI = "openai"
    OPEA = "opea"
    TEXT = "genaicomps"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, understood."""

    form: Form
    stream: bool
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

    @property
    def model(self) -> str | None:
        """The model that the client named, if any."""
        named = self.fields.get("model")
        return named if isinstance(named, str) and named else None

    @property
    def needs_model(self) -> bool:
        """Whether the service has to name the model."""
        return self.fields.get("model") in (None, "")

    def engine_body(self, model: str, window: int | None) -> bytes:
        """Return the bytes for the engine, with the model filled in if the client named none.

        `window` is the model's context in tokens: the engine refuses a limit above it, so a default that nobody asked
        for must stay below.
        """
        if self.raw is not None and not self.needs_model:
            return self.raw
        body = dict(self.fields)
        if self.needs_model:
            body["model"] = model
        if self.default_max_tokens is not None and (window is None or window > self.default_max_tokens):
            body["max_tokens"] = self.default_max_tokens
        return _dump(body)


def read(raw: bytes) -> Fields:
    """Return the JSON object in a body; raise BadRequest when there is none."""
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise BadRequest("The body must be a JSON object.")
    return fields


def form_of(fields: Fields) -> Form:
    """Say in which form a request is written; raise BadRequest when `messages` fits none."""
    messages = fields.get("messages")
    if isinstance(messages, list):
        return Form.OPENAI
    if isinstance(messages, dict):
        return Form.OPEA
    if isinstance(messages, str):
        return Form.TEXT
    raise BadRequest(
        'messages must be a list of messages, an object {"system": …, "user": …}, or a string.', param="messages"
    )


def parse(form: Form, fields: Fields, raw: bytes, *, disable_streaming: bool = False) -> Call:
    """Understand a request of the given form; raise BadRequest with one sentence when it cannot be used."""
    edited = dict(fields)
    renamed = _rename_aliases(edited)
    stream = edited.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("stream (or streaming) must be true or false.", param="stream")
    warnings = tuple(f"{name} is not applied: {why}" for name, why in _IGNORED.items() if fields.get(name) is not None)
    if form is Form.OPENAI:
        if stream and disable_streaming:
            raise BadRequest(
                "Streaming is switched off here (LLM_DISABLE_STREAMING); send stream: false.", param="stream"
            )
        return Call(form, bool(stream), edited, None if renamed else raw, warnings=warnings)
    for name in (*_OPEA_ONLY, *_IGNORED):
        edited.pop(name, None)
    edited["stream"] = (True if stream is None else stream) and not disable_streaming
    if form is Form.TEXT:
        edited["messages"] = [{"role": "user", "content": fields["messages"]}]
        return Call(form, edited["stream"], edited, None, warnings=warnings)
    return _opea(fields, edited, warnings)


def _opea(fields: Fields, edited: Fields, warnings: tuple[str, ...]) -> Call:
    edited["messages"], prompt = _opea_messages(fields["messages"])
    if edited.get("n") not in (None, 1) or edited.get("tools") is not None:
        raise BadRequest("OPEA's reply holds one text: n above 1 and tools need messages as OpenAI's list.", param="n")
    for name, value in OPEA_DEFAULTS.items():
        if edited.get(name) is None:
            edited[name] = value
    limited = edited.get("max_tokens") is not None or edited.get("max_completion_tokens") is not None
    if not limited:
        edited.pop("max_tokens", None)
    data = fields.get("data")
    echo = {
        "output_guardrail_params": fields.get("output_guardrail_params"),
        "data": data if isinstance(data, dict) else None,
    }
    default = None if limited else OPEA_MAX_TOKENS
    return Call(Form.OPEA, edited["stream"], edited, None, prompt, echo, warnings, default)


def _opea_messages(messages: Fields) -> tuple[list[Fields], str]:
    if set(messages) - {"system", "user"}:
        raise BadRequest("messages may hold only system and user; use OpenAI's list for more turns.", param="messages")
    system, user = messages.get("system"), messages.get("user")
    if not isinstance(user, str):
        raise BadRequest("messages.user must be a string.", param="messages")
    if system is not None and not isinstance(system, str):
        raise BadRequest("messages.system must be a string.", param="messages")
    turns = [{"role": "user", "content": user}]
    # Some chat templates know no system role, so an empty one is not sent.
    if system and system.strip():
        turns.insert(0, {"role": "system", "content": system})
    return turns, user


def _rename_aliases(fields: Fields) -> bool:
    """Put OPEA's names under OpenAI's, in place; say whether anything changed."""
    renamed = False
    for name, alias in _ALIASES:
        if alias not in fields:
            continue
        renamed = True
        value = fields.pop(alias)
        if value is None:
            continue
        if name == "max_tokens" and (type(value) is not int or value < 1):
            raise BadRequest(f"{alias} must be a whole number above 0.", param=alias)
        if name == "stream" and not isinstance(value, bool):
            raise BadRequest(f"{alias} must be true or false.", param=alias)
        other = fields.get(name)
        if other is not None and (type(other) is not type(value) or other != value):
            raise BadRequest(f"{name} and {alias} disagree; send one of them.", param=alias)
        fields[name] = value
    return renamed


def _dump(body: Fields) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        raise BadRequest("The body is nested too deeply.") from None
