"""What the stub engine writes: whole answers, chunks of a stream, OpenAI's objects, vLLM's counters."""

import asyncio
import json
from collections.abc import Mapping


def whole(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    retry_after: str | None = None,
    cookie: str | None = None,
    kind: str = "application/json",
    cut: int | None = None,
) -> bool:
    """Write a whole answer, or only so many bytes of its body; return whether the connection can be kept."""
    extra = f"Retry-After: {retry_after}\r\n" if retry_after else ""
    extra += f"Set-Cookie: {cookie}\r\n" if cookie else ""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    writer.write(head.encode() + body[:cut])
    return cut is None


def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write one chunk of a chunked body."""
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def event(text: str, *, chat: bool = True) -> bytes:
    """A server-sent event with one piece of an answer, of chat or of /v1/completions."""
    piece = {"delta": {"content": text}} if chat else {"text": text}
    choice = {"index": 0, **piece, "finish_reason": None}
    kind = "chat.completion.chunk" if chat else "text_completion"
    frame = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "stub-model"}
    chunk = {**frame, "choices": [choice]}
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


def completion(text: str, *, chat: bool = True) -> bytes:
    """A whole answer, of chat or of /v1/completions."""
    answer = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choice = {"index": 0, **answer, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    kind = "chat.completion" if chat else "text_completion"
    whole = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "stub-model", "choices": [choice]}
    return json.dumps({**whole, "usage": usage}).encode()


def metrics(counts: Mapping[str, int]) -> bytes:
    """/metrics as vLLM words it."""
    labels = '{model_name="stub-model",engine="0"}'
    names = {name: f"vllm:{name}" + ("_total" if name.endswith("_tokens") else "") for name in counts}
    return "".join(f"{names[name]}{labels} {float(value)}\n" for name, value in counts.items()).encode()
