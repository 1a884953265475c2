"""What a batch asks: lines in OpenAI's batch form, each looked at before anything starts."""

import json
from collections.abc import Iterator
from typing import Any

from engine.journal import Entry

# What vLLM's offline engine answers (0.32); it has no plain completions.
_ENDPOINTS = ("/chat/completions", "/embeddings", "/score", "/rerank", "/audio/transcriptions", "/audio/translations")


def complaints(lines: Iterator[tuple[int, bytes]]) -> Iterator[Entry]:
    """An entry for each line that cannot be asked: what it lacks. Lines are numbered from 0, in messages from 1."""
    seen: dict[str, int] = {}
    for number, raw in lines:
        request, why = _read(raw)
        name = request.get("custom_id")
        if not why and name in seen:
            why = f"custom_id {name!r} stands on line {seen[name] + 1} already"
        if why:
            yield refused(number, name if isinstance(name, str) else None, f"line {number + 1}: {why}")
        else:
            seen[str(name)] = number


def _read(raw: bytes) -> tuple[dict[str, Any], str]:
    """A line's object, and what is wrong with it."""
    try:
        request = json.loads(raw.decode())
    except UnicodeDecodeError:
        return {}, "not UTF-8"
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON ({error})"
    if not isinstance(request, dict):
        return {}, "not a JSON object"
    if not isinstance(request.get("custom_id"), str) or not request["custom_id"]:
        return request, "custom_id is missing, or is no string"
    if request.get("method") != "POST":
        return request, 'method is not "POST"'
    if not isinstance(request.get("url"), str) or not request["url"].endswith(_ENDPOINTS):
        return request, f"url is not /v1 and one of {', '.join(_ENDPOINTS)}"
    if not isinstance(request.get("body"), dict):
        return request, "body is missing, or is no object"
    return request, ""


def refused(number: int, custom_id: str | None, why: str) -> Entry:
    """The entry of a line that never reaches the engine."""
    body = {"error": {"message": why, "type": "invalid_request_error", "code": 400}}
    name = f"line-{number + 1}"
    response = {"status_code": 400, "request_id": name, "body": body}
    return Entry(number, True, {"id": name, "custom_id": custom_id, "response": response, "error": None})
