"""What is known of one request. Log, metrics, statistics and traces read it once, when the request has ended."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

LONGEST_LOGGED = 128  # characters of what a client chose: a path, a model's name
CLIENT_LEFT = "client gone"
CLIENT_GONE = 499  # nginx's number for a client that left before its answer began; it is never sent


@dataclass(slots=True)
class Exchange:
    """One request and its reply, in numbers and names. Never a prompt, never an answer, never a key.

    Times are of `time.perf_counter`, in seconds.
    """

    request_id: str
    method: str
    path: str
    """As the client sent it, cut to LONGEST_LOGGED."""
    route: str = "other"
    """The path's template from the allow-list, so that there are only so many of them."""
    started_at: float = field(default_factory=perf_counter)
    traceparent: str | None = None
    """What the engine is sent as such: the client's own, or that of this request's span."""
    span: object = None
    """What `tracing` keeps here; None when nothing is traced."""
    key: str | None = None
    """The name of the key that opened the door."""
    status: int = 0
    outcome: str = "ok"
    """`ok`, `client gone`, `fault`, or the `kind` of the error that the client was told."""
    dialect: str | None = None
    """The form of a chat request (openai, opea, genaicomps), or the family of any other relayed path."""
    model: str | None = None
    stream: bool | None = None
    engine: str | None = None
    retries: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    chunks: int = 0
    """Pieces of a stream that went to the client; one piece may hold several events."""
    queued_at: float | None = None
    admitted_at: float | None = None
    first_byte_at: float | None = None
    last_byte_at: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


Observer = Callable[[Exchange], None]
"""Called once for each request that has ended. It must be quick, and must not raise."""
