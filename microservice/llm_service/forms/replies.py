"""Whole replies in the shape that the request's form expects."""

from typing import Any
from uuid import uuid4

import orjson

from llm_service.config.setting_kinds import StreamFormat
from llm_service.errors import EngineLost, EngineNotReady, ServiceError, ShuttingDown
from llm_service.forms.dialects import Call, Form
from llm_service.forms.events import Literals, message_text


def whole_reply(call: Call, completion: bytes) -> bytes:
    """Return a whole reply as the request's form expects it; raise EngineLost when there is none in it."""
    return opea_reply(call, completion) if call.form is Form.OPEA else completion


def stream_shape(call: Call | None, form: StreamFormat) -> Literals | None:
    """Return what rewrites a stream for the request's form; None when its bytes stay as they are."""
    if call is None or call.form is Form.OPENAI or call.newer or form is StreamFormat.OPENAI:
        return None
    return Literals(as_bytes=form is StreamFormat.BYTES_REPR)


def opea_reply(call: Call, completion: bytes) -> bytes:
    """Return OPEA's GeneratedDoc for an OpenAI completion; raise EngineLost when it is none.

    That of Enterprise-RAG 2.x lists the choices. It has the completion's other fields, too: a client that reads only
    OpenAI's reply, and sent `max_new_tokens` for some reason, finds all it knows.
    """
    try:
        parsed = orjson.loads(completion)
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict) or not parsed.get("choices"):
        raise EngineLost("The engine's answer is no chat completion.")
    reply: dict[str, Any] = parsed if call.newer else {}
    reply |= {"id": uuid4().hex, "text": message_text(parsed), "prompt": call.prompt, **call.echo}
    reply["data"] = call.echo["data"] or {"reranked_docs": []}
    return orjson.dumps(reply)


def engine_message(body: bytes) -> str | None:
    """Return the sentence in an error that the engine sent, in OpenAI's envelope or vLLM's bare form."""
    error = _error(body)
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else None


def door_refusal(status: int, body: bytes) -> ServiceError | None:
    """Return the error that a service like this one, in front of an engine, answered with; None for any other reply.

    vLLM's own 503, of a full queue, is none: it is an answer, and goes to the client.
    """
    error = _error(body) if status in (502, 503) else None
    if not isinstance(error, dict) or not isinstance(message := error.get("message"), str):
        return None
    match status, error.get("type"):
        case 503, EngineNotReady.kind:
            return EngineNotReady(message, phase=error.get("phase"))
        case 503, ShuttingDown.kind:
            return EngineNotReady(message, phase="draining")
        case 503, "overloaded_error" if error.get("phase") is not None:  # as Anthropic's clients are told
            return EngineNotReady(message, phase=error["phase"])
        case 502, EngineLost.kind | "api_error":
            return EngineLost(message, unanswered=True)
    return None


def _error(body: bytes) -> Any:
    try:
        return orjson.loads(body)["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
