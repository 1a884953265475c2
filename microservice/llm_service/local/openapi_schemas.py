"""What requests and replies look like, for /openapi.json: the fields that matter, and none forbidden.

The engine's own document has every field; these are those that clients send most, and those that this service reads.
"""

from typing import Any

Schema = dict[str, Any]


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    made: Schema = {"type": "object", "properties": properties, "additionalProperties": True}
    return {**made, "required": list(required)} if required else made


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def ref(name: str) -> Schema:
    """Return a reference to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_NUMBER: Schema = {"type": "number"}
_ANY: Schema = {"type": "object", "additionalProperties": True}
_MODEL: Schema = {"type": "string", "description": "As GET /v1/models lists it. Left out, it is the service's default."}
_SAMPLING: dict[str, Schema] = {
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"type": "integer", "minimum": -1},
    "repetition_penalty": {"type": "number", "exclusiveMinimum": 0, "maximum": 2},
    "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "stop": {"anyOf": [_TEXT, _list(_TEXT)]},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
}
_STREAM: dict[str, Schema] = {"stream": _FLAG, "stream_options": _object(include_usage=_FLAG)}
_USAGE = _object(prompt_tokens={"type": "integer"}, completion_tokens={"type": "integer"})
_TURN = _object(
    ("role",),
    role={"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
    content={"anyOf": [_TEXT, _list(_ANY), {"type": "null"}]},
)

SCHEMAS: dict[str, Schema] = {
    "OpenAIChat": _object(
        ("messages",),
        model=_MODEL,
        messages=_list(_TURN, minItems=1),
        max_tokens=_COUNT,
        tools=_list(_ANY),
        response_format=_ANY,
        logprobs=_FLAG,
        **_SAMPLING,
        **_STREAM,
    ),
    "OpeaChat": _object(
        ("messages",),
        model=_MODEL,
        messages={
            "type": "object",
            "required": ["user"],
            "properties": {"system": _TEXT, "user": _TEXT},
            "additionalProperties": False,
        },
        max_new_tokens=_COUNT,
        streaming=_FLAG,
        typical_p=_NUMBER,
        data=_ANY,
        **_SAMPLING,
    ),
    "TextChat": _object(("messages",), model=_MODEL, messages=_TEXT, max_tokens=_COUNT, stream=_FLAG, **_SAMPLING),
    "Completion": _object(
        ("prompt",), model=_MODEL, prompt={"anyOf": [_TEXT, _list(_TEXT)]}, max_tokens=_COUNT, **_SAMPLING, **_STREAM
    ),
    "Response": _object(
        ("input",),
        model=_MODEL,
        input={"anyOf": [_TEXT, _list(_ANY)]},
        instructions=_TEXT,
        max_output_tokens=_COUNT,
        store=_FLAG,
        stream=_FLAG,
    ),
    "Embedding": _object(("input",), model=_MODEL, input={"anyOf": [_TEXT, _list(_TEXT)]}, dimensions=_COUNT),
    "Score": _object(("text_1", "text_2"), model=_MODEL, text_1=_TEXT, text_2={"anyOf": [_TEXT, _list(_TEXT)]}),
    "Rerank": _object(("query", "documents"), model=_MODEL, query=_TEXT, documents=_list(_TEXT), top_n=_COUNT),
    "Message": _object(
        ("messages", "max_tokens"),
        model=_MODEL,
        messages=_list(
            _object(
                ("role", "content"),
                role={"type": "string", "enum": ["user", "assistant"]},
                content={"anyOf": [_TEXT, _list(_ANY)]},
            ),
            minItems=1,
        ),
        max_tokens=_COUNT,
        system={"anyOf": [_TEXT, _list(_ANY)]},
        stream=_FLAG,
    ),
    "Recording": _object(("file",), file={"type": "string", "format": "binary"}, model=_TEXT, language=_TEXT),
    "ChatReply": _object(("choices",), id=_TEXT, choices=_list(_ANY), usage=_USAGE),
    "OpeaReply": _object(("text", "prompt"), id=_TEXT, text=_TEXT, prompt=_TEXT, data=_ANY),
    "Reply": _ANY,
    "Models": _object(("object", "data"), object=_TEXT, data=_list(_object(("id",), id=_TEXT))),
    "State": _object(
        ("state", "detail", "models"),
        state={
            "type": "string",
            "enum": ["starting", "loading", "ready", "draining", "unreachable", "failed"],
        },
        detail=_TEXT,
        models=_list(_TEXT),
    ),
    "Alive": _object(("status",), status={"const": "alive"}),
    "Error": _object(
        ("error",),
        error=_object(
            ("message", "type", "code"),
            message=_TEXT,
            type=_TEXT,
            param={"type": ["string", "null"]},
            code={"type": ["integer", "string", "null"]},
            phase=_TEXT,
        ),
    ),
    "AnthropicError": _object(
        ("type", "error"), type={"const": "error"}, error=_object(("type", "message"), type=_TEXT, message=_TEXT)
    ),
    "OpeaError": _object(("detail",), detail={"anyOf": [_TEXT, _list(_object(("msg",), msg=_TEXT))]}),
}
