"""The document at /openapi.json: every path that this service answers, made from the allow-list."""

from typing import Any

from llm_service import __version__
from llm_service.local.openapi_schemas import SCHEMAS, Schema, ref
from llm_service.paths import Family, Kind, Paths, Route

_JSON = "application/json"
_EVENTS: dict[str, Any] = {"text/event-stream": {}}
_CHAT: Schema = {"anyOf": [ref("OpenAIChat"), ref("OpeaChat"), ref("TextChat")]}
_CHAT_REPLY: Schema = {"anyOf": [ref("ChatReply"), ref("OpeaReply")]}
# By the path: what it is for, its request, its reply.
_RELAYED: dict[str, tuple[str, Schema | None, Schema]] = {
    "/v1/chat/completions": ("Chat, in OpenAI's form or one of OPEA's", _CHAT, _CHAT_REPLY),
    "/v1/completions": ("Completion of a text", ref("Completion"), ref("ChatReply")),
    "/v1/responses": ("OpenAI's Responses", ref("Response"), ref("Reply")),
    "/v1/responses/{response_id}": ("One response that the engine keeps", None, ref("Reply")),
    "/v1/responses/{response_id}/cancel": ("End a response that is made in the background", None, ref("Reply")),
    "/v1/embeddings": ("Embeddings", ref("Embedding"), ref("Reply")),
    "/v1/score": ("How well texts fit each other", ref("Score"), ref("Reply")),
    "/v1/rerank": ("Documents in the order in which they fit a question", ref("Rerank"), ref("Reply")),
    "/v1/messages": ("Anthropic's Messages", ref("Message"), ref("Reply")),
    "/v1/messages/count_tokens": ("How many tokens a message has", ref("Message"), ref("Reply")),
    "/v1/audio/transcriptions": ("The words of a recording", ref("Recording"), ref("Reply")),
    "/v1/audio/translations": ("The words of a recording, in English", ref("Recording"), ref("Reply")),
}
_OTHER: tuple[str, Schema | None, Schema] = ("A path of the engine that LLM_OPEN_PATHS opened", None, {})
_REFUSED = {
    "400": "The body cannot be used; one sentence says why.",
    "404": "No such model, or the engine's model serves no such path.",
    "405": "The path takes other methods.",
    "408": "The body took too long to come.",
    "413": "The body is too large.",
    "422": "The body cannot be used (OPEA's forms).",
    "429": "This key has as many requests as it may have.",
    "502": "The engine broke off before it answered.",
    "503": "The engine is not ready, or there are too many requests. `phase` says what it is doing.",
    "504": "The engine took too long.",
}
_AT_THE_PORT = {
    "414": "The path and the query are too long.",
    "431": "The head is too large.",
}
_WAIT = {"retry-after": {"description": "Seconds after which to try again.", "schema": {"type": "integer"}}}


def document(paths: Paths, *, locked: bool, page: bool) -> dict[str, Any]:
    """Return the OpenAPI document for an allow-list; whether it asks for a key, and serves its page."""
    found: dict[str, dict[str, Any]] = {}
    for method, route in paths.relayed():
        found.setdefault(route.template, {})[method.lower()] = _operation(method, route, locked)
    for path, operation in _local().items():
        responses = operation["responses"] | (
            {"401": _unauthorized()} if locked and "security" not in operation else {}
        )
        found[path] = {"get": {**operation, "responses": responses | _errors(_AT_THE_PORT, ref("Error"))}}
    if not page:
        del found["/"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Berth LLM service",
            "version": __version__,
            "description": "A thin service in front of vLLM. Fields that are not named here reach the engine, too.",
        },
        "paths": dict(sorted(found.items())),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if locked else [],
    }


def _operation(method: str, route: Route, locked: bool) -> dict[str, Any]:
    summary, request, reply = _RELAYED.get(route.template, _OTHER)
    error: Schema = ref("AnthropicError") if route.family is Family.ANTHROPIC else ref("Error")
    if route.kind is Kind.CHAT:
        error = {"anyOf": [error, ref("OpeaError")]}
    refused = _REFUSED | _AT_THE_PORT
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "The engine's answer.", "content": {_JSON: {"schema": reply}, **_EVENTS}},
            **_errors(refused, error),
            **({"401": _unauthorized(error)} if locked else {}),
        },
    }
    if request is not None:
        kind = "multipart/form-data" if route.kind is Kind.BYTES else _JSON
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": request}}}
    if "{response_id}" in route.template:
        name = {"name": "response_id", "in": "path", "required": True}
        operation["parameters"] = [{**name, "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"}}]
    return operation


def _errors(refused: dict[str, str], error: Schema) -> dict[str, Any]:
    told = {
        status: {"description": reason, "content": {_JSON: {"schema": error}}} for status, reason in refused.items()
    }
    for status in ("429", "503"):
        if status in told:
            told[status]["headers"] = _WAIT
    return told


def _unauthorized(error: Schema | None = None) -> dict[str, Any]:
    content = {_JSON: {"schema": error or ref("Error")}}
    header = {"www-authenticate": {"schema": {"type": "string"}}}
    return {"description": "No key, or one that is not known.", "headers": header, "content": content}


def _local() -> dict[str, dict[str, Any]]:
    def reply(summary: str, schema: Schema, kind: str = _JSON) -> dict[str, Any]:
        return {
            "summary": summary,
            "responses": {"200": {"description": summary, "content": {kind: {"schema": schema}}}},
        }

    text: Schema = {"type": "string"}
    waiting = {"description": "Not ready.", "headers": _WAIT, "content": {_JSON: {"schema": ref("State")}}}
    ready = reply("Whether a request would be answered, and if not, what the engine is doing", ref("State"))
    ready["responses"]["503"] = waiting
    check = reply("The same, with OPEA's keys", ref("State"))
    check["responses"]["503"] = waiting
    models = reply("The models that the engine serves", ref("Models"))
    models["responses"] |= _errors({status: _REFUSED[status] for status in ("502", "503", "504")}, ref("Error"))
    return {
        "/": reply("A page to chat", text, "text/html") | {"security": []},
        "/health": reply("Whether this process lives; the engine is not asked", ref("Alive")),
        "/ready": ready,
        "/v1/health_check": check,
        "/v1/models": models,
        "/v1/statistics": reply("Latencies of the latest answers, in seconds", ref("Reply")),
        "/metrics": reply("What Prometheus collects", text, "text/plain"),
        "/openapi.json": reply("This document", ref("Reply")),
    }
