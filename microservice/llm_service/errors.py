"""What can go wrong, and what the client is told.

    ServiceError
    ├── BadRequest        400   the body cannot be used (422 in OPEA's form)
    ├── RequestTimeout    408   the body took too long to come
    ├── BodyTooLarge      413
    ├── Unauthorized      401   no key, or one that is not known
    ├── NotFound          404   no such path
    ├── WrongMethod       405   Allow names those that the path takes
    ├── TooManyRequests   429   one key's limit; Retry-After
    ├── Overloaded        503   the service's own limit; Retry-After
    ├── EngineNotReady    503   Retry-After, and the engine's phase
    ├── EngineLost        502   the engine broke off, or answered what cannot be used
    ├── EngineTimeout     504   the engine was silent for too long
    ├── RequestTooLong    504
    ├── ShuttingDown      503
    └── Unexpected        500   a fault of ours; the request id leads to the log line

OpenAI's envelope carries them, with vLLM's whole-number `code`; requests in OPEA's form get `detail`, and those of
Anthropic's interface its own object.
"""

from typing import ClassVar

import orjson

RETRY_AFTER_SECONDS = 5  # a small model loads in tens of seconds: often enough to notice, seldom enough not to hammer


class ServiceError(Exception):
    """An error that a client sees. `param` names the field at fault, `phase` what the engine is doing."""

    status: ClassVar[int]
    kind: ClassVar[str]
    retry_after: int | None = None
    """Seconds after which it is worth trying again."""

    def __init__(self, message: str, *, param: str | None = None, phase: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.phase = phase


class BadRequest(ServiceError):
    """The body cannot be used."""

    status = 400
    kind = "BadRequestError"


class RequestTimeout(ServiceError):
    """The rest of the request did not come in time."""

    status = 408
    kind = "RequestTimeoutError"


class BodyTooLarge(ServiceError):
    """The body is larger than the service takes."""

    status = 413
    kind = "BodyTooLargeError"


class Unauthorized(ServiceError):
    """No key, or one that is not known."""

    status = 401
    kind = "AuthenticationError"


class NotFound(ServiceError):
    """No such path."""

    status = 404
    kind = "NotFoundError"


class WrongMethod(ServiceError):
    """The path is here, but not for this method; `allowed` are those that it takes."""

    status = 405
    kind = "RequestError"

    def __init__(self, allowed: list[str]) -> None:
        super().__init__("Method Not Allowed")
        self.allowed = allowed


class TooManyRequests(ServiceError):
    """A key has as many requests as it may have; `retry_after` is when it may send the next one."""

    status = 429
    kind = "RateLimitError"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(ServiceError):
    """The service has as many requests as it may have, and its queue is full or too slow."""

    status = 503
    kind = "OverloadedError"
    retry_after = RETRY_AFTER_SECONDS


class EngineNotReady(ServiceError):
    """The engine does not answer requests (yet)."""

    status = 503
    kind = "EngineNotReadyError"
    retry_after = RETRY_AFTER_SECONDS


class EngineLost(ServiceError):
    """The engine broke off, or answered what cannot be used.

    `unanswered` says that nothing of a reply had come, so that another engine may be asked; `reused` that, moreover,
    the connection had served before, so that the engine had most likely closed it before this request came; `told`
    that the stream ended in an error event, so that the client knows already.
    """

    status = 502
    kind = "EngineError"

    def __init__(self, message: str, *, unanswered: bool = False, reused: bool = False, told: bool = False) -> None:
        super().__init__(message)
        self.unanswered = unanswered
        self.reused = reused
        self.told = told


class EngineTimeout(ServiceError):
    """The engine took too long."""

    status = 504
    kind = "EngineTimeoutError"


class RequestTooLong(ServiceError):
    """The request took longer than any may, through no fault of the engine: it was given too much to do."""

    status = 504
    kind = "EngineTimeoutError"


class ShuttingDown(ServiceError):
    """The service stops and the reply did not finish in time."""

    status = 503
    kind = "ShuttingDownError"
    retry_after = RETRY_AFTER_SECONDS


class Unexpected(ServiceError):
    """A fault of ours."""

    status = 500
    kind = "InternalServerError"


def envelope(status: int, kind: str, message: str, param: str | None = None, phase: str | None = None) -> bytes:
    """Return OpenAI's error object as JSON; `phase` is added when the engine's state is the reason."""
    error: dict[str, object] = {"message": message, "type": kind, "param": param, "code": status}
    if phase is not None:
        error["phase"] = phase
    return orjson.dumps({"error": error})


def openai_body(error: ServiceError) -> bytes:
    """Return the error in OpenAI's envelope."""
    return envelope(error.status, error.kind, error.message, error.param, error.phase)


# https://docs.anthropic.com/en/api/errors; what is not listed there is an api_error.
_ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_body(error: ServiceError) -> bytes:
    """Return the error as Anthropic's clients read it."""
    kind = _ANTHROPIC_KINDS.get(error.status, "api_error")
    told: dict[str, object] = {"type": kind, "message": error.message}
    if error.phase is not None:
        told["phase"] = error.phase
    return orjson.dumps({"type": "error", "error": told})


def opea_status(error: ServiceError) -> int:
    """Return the status that OPEA's clients expect: a body that fails validation is 422 there."""
    return 422 if isinstance(error, BadRequest) else error.status


def opea_body(error: ServiceError) -> bytes:
    """Return the error as OPEA's clients read it: a list with `msg` for validation, else one sentence."""
    if isinstance(error, BadRequest):
        place = ["body", error.param] if error.param else ["body"]
        return orjson.dumps({"detail": [{"type": "value_error", "loc": place, "msg": error.message}]})
    return opea_sentence(error.message)


def opea_sentence(message: str) -> bytes:
    """Return one sentence, of ours or of the engine, as OPEA's clients read it."""
    return orjson.dumps({"detail": message})


def shaped(error: ServiceError, dialect: str | None) -> tuple[int, bytes]:
    """Return the status and the body of an error in the shape that a dialect's clients read."""
    if dialect == "opea":
        return opea_status(error), opea_body(error)
    return error.status, anthropic_body(error) if dialect == "anthropic" else openai_body(error)


def error_headers(error: ServiceError) -> list[tuple[bytes, bytes]]:
    """Return the headers of a reply that is nothing but this error."""
    headers = [(b"content-type", b"application/json")]
    if error.retry_after:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if isinstance(error, ShuttingDown):
        headers.append((b"connection", b"close"))
    elif isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    elif isinstance(error, WrongMethod):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    return headers
