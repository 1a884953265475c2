"""What the stand-in for vLLM can be told to do, and what it notes of a request."""

import json
import threading
from dataclasses import dataclass, field
from typing import Any

TEXT = ["Deep learning", " isn't magic:", " it fits", " many layers", " to data.\n"]
TEXT_PATHS = ("/v1/chat/completions", "/v1/completions")


@dataclass
class Knobs:
    """How the engine behaves; tests set these while it runs."""

    models: list[str] = field(default_factory=lambda: ["stub-model"])
    window: int = 4096
    pieces: list[str] = field(default_factory=lambda: list(TEXT))
    silent: bool = False  # accept connections, answer nothing
    healthy: bool = True
    status: int = 200
    error_body: bytes = b'{"error":{"message":"max_tokens is too large","type":"BadRequestError","code":400}}'
    retry_after: str | None = None
    whole_body: bytes | None = None
    cut: int | None = None  # close after so many bytes of a whole body
    garbage: bool = False  # answer what is not HTTP
    piece_seconds: float = 0.0
    hold: str | None = None  # "before headers", "after headers", "after first piece": wait until the client leaves
    die: str | None = None  # "before headers", "in stream", "in event", "reset in stream", "clean end in stream"
    die_after: threading.Event | None = None  # do not die in a stream before a test says so
    split_bytes: bool = False  # send the stream byte by byte
    others: dict[str, bytes] = field(default_factory=dict)  # whole answers, or streams of events, by path
    api_key: str | None = None
    cookie: str | None = None


@dataclass
class Record:
    """One request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    pieces_sent: int = 0
    client_left: bool = False
    answered: bool = False

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def chat(self) -> bool:
        """Whether it is a chat request."""
        return self.path == TEXT_PATHS[0]
