"""The allow-list: the only paths that lead to the engine, and those that this service answers itself.

What is not here does not exist for a client: vLLM's own key guards /v1 only, and behind /invocations, /tokenize, the
routes of its development mode and those that load adapters stand the model, its memory and its files.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What the service does with a body."""

    CHAT = "chat"
    """Reads it: `messages` says who wrote it."""
    JSON = "json"
    """Looks for `model` and `stream`, and passes it as it is."""
    BYTES = "bytes"
    """Passes it unseen, such as a recording in multipart form."""
    LOCAL = "local"
    """Answers by itself."""


class Family(StrEnum):
    """Whose interface a path belongs to, and so the shape of its errors."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Route:
    """One way in. `template` is the path with the names of its variable parts, for metrics."""

    template: str
    kind: Kind = Kind.JSON
    family: Family = Family.OPENAI
    ends: tuple[bytes, ...] = ()
    """How the last event of a complete stream begins, one of these; none: the end of the reply says enough."""
    stored: bool = False
    """Whether the engine keeps what it made unless told otherwise, so that a request must not be sent twice."""


_DONE = (b"data: [DONE]",)
_RESPONSE_ENDS = tuple(b"event: response." + end for end in (b"completed", b"incomplete", b"failed")) + _DONE
_MESSAGE_ENDS = (b"event: message_stop", *_DONE)
_RELAYED: dict[tuple[str, str], Route] = {
    ("POST", path): Route(path, kind, family, ends, stored)
    for path, kind, family, ends, stored in (
        ("/v1/chat/completions", Kind.CHAT, Family.OPENAI, _DONE, False),
        ("/v1/completions", Kind.JSON, Family.OPENAI, _DONE, False),
        ("/v1/responses", Kind.JSON, Family.OPENAI, _RESPONSE_ENDS, True),
        ("/v1/embeddings", Kind.JSON, Family.OPENAI, (), False),
        ("/v1/score", Kind.JSON, Family.OPENAI, (), False),
        ("/v1/rerank", Kind.JSON, Family.OPENAI, (), False),
        ("/v1/messages", Kind.JSON, Family.ANTHROPIC, _MESSAGE_ENDS, False),
        ("/v1/messages/count_tokens", Kind.JSON, Family.ANTHROPIC, (), False),
        ("/v1/audio/transcriptions", Kind.BYTES, Family.OPENAI, _DONE, False),
        ("/v1/audio/translations", Kind.BYTES, Family.OPENAI, _DONE, False),
    )
}
_RESPONSE = Route("/v1/responses/{response_id}", Kind.BYTES, ends=_RESPONSE_ENDS)
_CANCEL = Route("/v1/responses/{response_id}/cancel", Kind.BYTES)
_NAMED = (
    (re.compile(rb"/v1/responses/[A-Za-z0-9_-]{1,128}"), {"GET": _RESPONSE, "DELETE": _RESPONSE}),
    (re.compile(rb"/v1/responses/[A-Za-z0-9_-]{1,128}/cancel"), {"POST": _CANCEL}),
)
_LOCAL = (
    *("/health", "/ready", "/v1/health_check", "/v1/models", "/v1/statistics", "/metrics", "/openapi.json"),
    "/",
)
PAGE = "/page/"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def public(method: str, path: str) -> bool:
    """Say whether the page, which holds no secret and asks for a key itself, may be fetched without one."""
    return method in ("GET", "HEAD") and (path == "/" or path.startswith(PAGE))


class Paths:
    """The allow-list, with the further paths of the engine that the settings open."""

    def __init__(self, opened: Iterable[str] = ()) -> None:
        self._exact = dict(_RELAYED)
        for path in opened:
            self._exact |= {(method, path): Route(path, Kind.BYTES) for method in ("GET", "POST")}
        self._exact |= {(method, path): Route(path, Kind.LOCAL) for path in _LOCAL for method in ("GET", "HEAD")}
        self._page = Route(PAGE + "{file}", Kind.LOCAL)

    def find(self, method: str, path: str, raw: bytes) -> Route | None:
        """Return where a request goes; None when nothing that it asks for is here.

        `raw` is the path as it was sent: a name in a path goes to the engine, so it may hold no escapes.
        """
        if (route := self._exact.get((method, path))) is not None:
            return route
        if path.startswith("/v1/responses/"):
            return next((routes.get(method) for pattern, routes in _NAMED if pattern.fullmatch(raw)), None)
        return self._page if path.startswith(PAGE) else None

    def methods(self, path: str, raw: bytes) -> list[str]:
        """Return the methods that a path takes, none when it does not exist."""
        return [method for method in _METHODS if self.find(method, path, raw) is not None]

    def relayed(self) -> list[tuple[str, Route]]:
        """Return every way to the engine: method and route."""
        named = [(method, route) for _, routes in _NAMED for method, route in routes.items()]
        exact = [(method, route) for (method, _), route in self._exact.items() if route.kind is not Kind.LOCAL]
        return exact + named
