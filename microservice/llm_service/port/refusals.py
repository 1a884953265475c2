"""What a client is told that never got as far as the application: a reply as bytes, in OpenAI's envelope."""

from http import HTTPStatus

from llm_service.errors import RETRY_AFTER_SECONDS, Overloaded, RequestTimeout, envelope

KINDS = {
    400: "BadRequestError",
    408: RequestTimeout.kind,
    414: "RequestTargetTooLongError",
    431: "HeadersTooLargeError",
    503: Overloaded.kind,
}


def refusal(status: int, message: str) -> bytes:
    """Return a whole reply with one sentence, after which the connection closes."""
    body = envelope(status, KINDS[status], message)
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    if status == 503:
        lines.append(f"retry-after: {RETRY_AFTER_SECONDS}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
