"""What can go wrong, and what the client is told.

    ServiceError
    ├── BadRequest        400   the body cannot be used (422 in OPEA's form)
    ├── BodyTooLarge      413
    ├── Unauthorized      401   no key, or one that is not known
    ├── NotFound          404   no such path
    ├── EngineNotReady    503   Retry-After, and the engine's phase
    ├── EngineLost        502   the engine broke off, or answered what cannot be used
    ├── EngineTimeout     504
    ├── ShuttingDown      503
    └── Unexpected        500   a fault of ours; the request id leads to the log line

OpenAI's envelope carries them, with vLLM's whole-number `code`; requests in OPEA's form get `detail`.
"""

from typing import ClassVar

import orjson

RETRY_AFTER_SECONDS = 5  # a small model loads in tens of seconds: often enough to notice, seldom enough not to hammer


class ServiceError(Exception):
    """An error that a client sees. `param` names the field at fault, `phase` what the engine is doing."""

    status: ClassVar[int]
    kind: ClassVar[str]
    retry_after: ClassVar[int | None] = None

    def __init__(self, message: str, *, param: str | None = None, phase: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.phase = phase


class BadRequest(ServiceError):
    """The body cannot be used."""

    status = 400
    kind = "BadRequestError"


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


class EngineNotReady(ServiceError):
    """The engine does not answer requests (yet)."""

    status = 503
    kind = "EngineNotReadyError"
    retry_after = RETRY_AFTER_SECONDS


class EngineLost(ServiceError):
    """The engine broke off, or answered what cannot be used.

    `unanswered` says that nothing of a reply had come, so that another engine may be asked; `told` that the stream
    ended in an error event, so that the client knows already.
    """

    status = 502
    kind = "EngineError"

    def __init__(self, message: str, *, unanswered: bool = False, told: bool = False) -> None:
        super().__init__(message)
        self.unanswered = unanswered
        self.told = told


class EngineTimeout(ServiceError):
    """The engine took too long."""

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
