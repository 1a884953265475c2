"""One request as it goes to the engine, understood only as far as its path needs it."""

from dataclasses import dataclass

from starlette.types import Scope

from llm_service.asgi import Header
from llm_service.config.settings import Settings
from llm_service.engines.engine import Engine
from llm_service.forms import dialects
from llm_service.forms.dialects import Call, Form
from llm_service.paths import Kind, Route
from llm_service.records.exchange import LONGEST_LOGGED, Exchange

# What a client's headers may tell the engine. Its key, its cookies and its addresses are between it and this service.
_PASSED_ON = frozenset((b"accept", b"tracestate", b"baggage", b"anthropic-version", b"anthropic-beta", b"openai-beta"))
_JSON = (b"content-type", b"application/json")


@dataclass(slots=True)
class Work:
    """What an engine is asked."""

    route: Route
    method: str
    target: str
    headers: list[Header]
    raw: bytes
    call: Call | None
    """What is known of a JSON body; None when it is passed unseen."""
    once: bool = False
    """Whether the engine keeps what it makes, so that it may not be asked twice."""

    @property
    def model(self) -> str | None:
        """The model that the client named, if any."""
        return self.call.model if self.call else None

    @property
    def stream(self) -> bool:
        """Whether the client asked for a stream, as far as is known."""
        return self.call is not None and self.call.stream

    @property
    def needs_model(self) -> bool:
        """Whether this service names the model."""
        return self.call is not None and self.call.needs_model

    @property
    def opea(self) -> bool:
        """Whether the reply has OPEA's shape."""
        return self.call is not None and self.call.form is Form.OPEA

    @property
    def notes(self) -> list[Header]:
        """What the client is told in headers."""
        warnings = self.call.warnings if self.call else ()
        return [(b"x-berth-warning", "; ".join(warnings).encode())] if warnings else []

    def body_for(self, engine: Engine, settings: Settings, exchange: Exchange) -> bytes | None:
        """Return the bytes for an engine, with the model filled in if the client named none."""
        call = self.call
        if call is None:
            return self.raw or None
        name = call.model or _default_model(engine, settings)
        exchange.model = name[:LONGEST_LOGGED]
        return call.engine_body(name, engine.window(name) if call.default_max_tokens is not None else None)


def understood(route: Route, scope: Scope, raw: bytes, exchange: Exchange, settings: Settings) -> Work:
    """Read a request; raise BadRequest with one sentence when it cannot be used."""
    call: Call | None = None
    once = False
    if route.kind is Kind.CHAT:
        fields = dialects.read(raw)
        form = dialects.form_of(fields)
        exchange.dialect = form
        call = dialects.parse(
            form, fields, raw, disable_streaming=settings.disable_streaming, output_guard=settings.output_guard
        )
    elif route.kind is Kind.JSON:
        fields = dialects.read(raw)
        call = dialects.passed(fields, raw, disable_streaming=settings.disable_streaming)
        once = route.stored and fields.get("store") is not False
    if call is not None:
        exchange.stream = call.stream
    target = (call and call.path) or _target(route, scope)
    return Work(route, scope["method"], target, _headers(scope, exchange, call is not None), raw, call, once)


def _target(route: Route, scope: Scope) -> str:
    """The path as the allow-list has it, or as it was sent when it holds a name; with the client's query."""
    path = route.template if "{" not in route.template else str(scope["raw_path"], "ascii")
    query = scope["query_string"]
    return f"{path}?{query.decode('latin-1')}" if query else path


def _headers(scope: Scope, exchange: Exchange, json: bool) -> list[Header]:
    headers: list[Header] = [(b"x-request-id", exchange.request_id.encode())]
    if exchange.traceparent is not None:
        headers.append((b"traceparent", exchange.traceparent.encode()))
    for header in scope["headers"]:
        name = header[0]
        if name in _PASSED_ON or (name == b"content-type" and not json):
            headers.append(header)
    if json:  # whatever it was said to be: it was read as JSON
        headers.append(_JSON)
    return headers


def _default_model(engine: Engine, settings: Settings) -> str:
    named = settings.engine_model
    listed = [model.name for model in engine.watch.models]
    return settings.model or (named if named in listed else listed[0])
