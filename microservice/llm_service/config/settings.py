"""The service's settings: one frozen model, which `loading` reads from the environment once, at start.

A field's alias is the variable's name, its description is the line in docs/service.md, and `form` says what is
accepted. Nothing here has a second default anywhere else.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr

from llm_service.config import setting_kinds as kinds
from llm_service.config.setting_kinds import ConnectorName, StreamFormat, described
from llm_service.engines.address import Address, normalized_all

KEY_FILE = Path("/run/secrets/vllm_api_key")


class Settings(BaseModel):
    """Everything that the service can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = described("LLM_USVC_HOST", "Address to listen on.", "an address of this machine", "127.0.0.1")
    port: int = described("LLM_USVC_PORT", "Port to listen on; 0 picks a free one.", "0 to 65535", 9000, ge=0, le=65535)
    bind_address: str | None = described(
        "BIND_ADDR",
        "Where the port is published, for instance by Compose; unset, it is where the service listens. "
        "Unless only this machine can reach it, clients have to show a key.",
        "an address",
        None,
    )
    endpoint: Annotated[str, BeforeValidator(normalized_all)] = described(
        "LLM_VLLM_ENDPOINT",
        "Where the engine is, or several, or the directory in which their jobs keep an endpoint.json each. "
        "Older names: `LLM_MODEL_SERVER_ENDPOINT`, `LLM_ENDPOINT`. "
        "Unset, it is this machine at the engine's port, `LLM_VLLM_PORT`.",
        "http://host:port or https://host:port, without /v1; unix:///path/of/a.socket; "
        "several of these with commas between; or the absolute path of a directory",
        "http://127.0.0.1:8008",
    )
    model: str | None = described(
        "LLM_MODEL_NAME",
        "Model for requests that name none. Unset: the one that the engine lists.",
        "a model that the engine serves",
        None,
    )
    engine_model: str | None = described(
        "LLM_VLLM_MODEL_NAME",
        "The engine's setting. Of several models that an engine lists, this one is the default, else the first.",
        "a model name",
        None,
    )
    phase_file: Annotated[Path, BeforeValidator(kinds.absolute)] | None = described(
        "LLM_PHASE_FILE",
        "File in which the engine tells what its start does, for `/ready`. The engine reads this setting, too.",
        "the absolute path of a file",
        None,
    )
    api_key: Annotated[SecretStr, BeforeValidator(kinds.key)] | None = described(
        "VLLM_API_KEY",
        "Key that the engine asks for. `VLLM_API_KEY_FILE` names a file with it "
        f"(`{KEY_FILE}` is read when it is there).",
        "printable characters without blanks",
        None,
    )
    keys_file: Annotated[Path, BeforeValidator(kinds.absolute)] | None = described(
        "LLM_API_KEYS_FILE",
        "File with the keys of this service's clients, one a line. When set, every path asks for one of them.",
        "the absolute path of a file",
        None,
    )
    allow_no_key: bool = described(
        "LLM_ALLOW_NO_KEY",
        "Let other machines in without a key: for those who have a lock in front of the service.",
        "true or false",
        False,
    )
    key_max_in_flight: int | None = described(
        "LLM_KEY_MAX_IN_FLIGHT",
        "Requests that one key may have at a time, running or waiting, where its line says nothing else. "
        "Unset: no limit.",
        "whole numbers from 1 up",
        None,
        ge=1,
    )
    key_requests_per_minute: float | None = described(
        "LLM_KEY_REQUESTS_PER_MINUTE",
        "Requests that one key may send in a minute, where its line says nothing else. Unset: no limit.",
        "a number above 0",
        None,
        gt=0,
    )
    max_in_flight: int = described(
        "LLM_MAX_IN_FLIGHT", "Requests that are with the engine at a time.", "whole numbers from 1 up", 512, ge=1
    )
    max_queued: int = described(
        "LLM_MAX_QUEUED", "Requests that wait beyond those; the next gets 503.", "whole numbers from 0 up", 256, ge=0
    )
    queue_seconds: float = described(
        "LLM_QUEUE_TIMEOUT_SECONDS",
        "How long a request waits for its turn before it gets 503.",
        "seconds above 0",
        30.0,
        gt=0,
    )
    stream_format: Annotated[StreamFormat, BeforeValidator(kinds.lower)] = described(
        "LLM_STREAM_FORMAT",
        "Shape of streamed replies to OPEA requests: OpenAI's chunks, or the Python literals of older releases.",
        "openai, repr or bytes-repr",
        StreamFormat.OPENAI,
    )
    disable_streaming: bool = described(
        "LLM_DISABLE_STREAMING",
        "Answer OPEA requests whole, whatever they ask for; OpenAI's form gets an error when it asks for a stream.",
        "true or false",
        False,
    )
    page: bool = described(
        "LLM_PAGE",
        "Serve a page to chat on at `/`. It is served without a key, and asks for one.",
        "true or false",
        True,
    )
    output_guard: bool = described(
        "LLM_OUTPUT_GUARD_EXISTS",
        "Answer OPEA requests whole, with their wish for a stream repeated: OPEA's output guard reads the answer and "
        "streams it.",
        "true or false",
        False,
    )
    traces_endpoint: Annotated[str, BeforeValidator(kinds.collector)] | None = described(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "Where OpenTelemetry's traces go. Unset: to `/v1/traces` of `OTEL_EXPORTER_OTLP_ENDPOINT`; neither: no traces.",
        "http://host:port/path or https://host:port/path",
        None,
    )
    connector: Annotated[ConnectorName, BeforeValidator(kinds.lower)] = described(
        "LLM_CONNECTOR",
        "What carries requests to the engine. `langchain` needs the optional extra of that name.",
        "generic or langchain",
        ConnectorName.GENERIC,
    )
    connect_seconds: float = described(
        "LLM_CONNECT_TIMEOUT_SECONDS", "Longest wait for a connection to the engine.", "seconds above 0", 5.0, gt=0
    )
    first_byte_seconds: float = described(
        "LLM_FIRST_BYTE_TIMEOUT_SECONDS",
        "Longest wait for the first byte of a reply; for one that is not streamed, the longest wait at all.",
        "seconds above 0",
        600.0,
        gt=0,
    )
    idle_seconds: float = described(
        "LLM_IDLE_TIMEOUT_SECONDS", "Longest silence of the engine within a stream.", "seconds above 0", 60.0, gt=0
    )
    total_seconds: float | None = described(
        "LLM_TOTAL_TIMEOUT_SECONDS",
        "Longest time that a request may take. Unset: no limit.",
        "seconds above 0",
        None,
        gt=0,
    )
    keep_alive_seconds: float = described(
        "LLM_SSE_KEEP_ALIVE_SECONDS",
        "When nothing went to the client of a stream for this long, it gets a comment, so that nobody on the way takes "
        "the connection for dead; 0 sends none.",
        "seconds, 0 or more",
        15.0,
        ge=0,
    )
    open_paths: Annotated[tuple[str, ...], BeforeValidator(kinds.paths)] = described(
        "LLM_OPEN_PATHS",
        "Further paths of the engine that clients may use, such as `/tokenize`. Each is a way to more of the engine "
        "than answers.",
        "paths that begin with / and hold letters, digits, _, -, . and /, with commas between",
        (),
    )
    pool_wait_seconds: float = described(
        "LLM_POOL_WAIT_SECONDS",
        "With several engines, how long a request waits for one that is ready before it gets 503.",
        "seconds, 0 or more",
        10.0,
        ge=0,
    )
    drain_seconds: int = described(
        "LLM_DRAIN_TIMEOUT_SECONDS",
        "After SIGTERM, how long running replies may take to finish.",
        "whole seconds, 0 or more",
        60,
        ge=0,
    )
    max_body_mib: int = described(
        "LLM_MAX_BODY_MIB", "Largest body of a request, in MiB.", "whole numbers from 1 to 4096", 64, ge=1, le=4096
    )
    header_seconds: float = described(
        "LLM_HEADER_TIMEOUT_SECONDS",
        "How long the head of a request may take to come, from its first byte or the connection on.",
        "seconds above 0",
        10.0,
        gt=0,
    )
    body_seconds: float = described(
        "LLM_BODY_TIMEOUT_SECONDS",
        "How long the body of a request may take to come, from its head on.",
        "seconds above 0",
        60.0,
        gt=0,
    )
    tls_cert_file: Annotated[Path, BeforeValidator(kinds.absolute)] | None = described(
        "LLM_TLS_CERT_FILE",
        "Certificate in PEM form, with those that vouch for it after it. When set, the port speaks HTTPS only.",
        "the absolute path of a file",
        None,
    )
    tls_key_file: Annotated[Path, BeforeValidator(kinds.absolute)] | None = described(
        "LLM_TLS_KEY_FILE", "Key of that certificate, without a password.", "the absolute path of a file", None
    )
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(kinds.origins)] = described(
        "LLM_CORS_ORIGINS",
        "Sites whose pages may call this service from a browser. Unset: none but its own page.",
        "origins such as https://chat.example.org, with commas between, or *",
        (),
    )

    @property
    def engine_key(self) -> str | None:
        """The key that the engine asks for."""
        return self.api_key.get_secret_value() if self.api_key else None

    @property
    def directory(self) -> Path | None:
        """The directory that says which engines there are, if it is one that says so."""
        return Path(self.endpoint) if self.endpoint.startswith("/") else None

    @property
    def engines(self) -> tuple[Address, ...]:
        """The engines that the settings name; none when a directory does."""
        urls = () if self.directory else self.endpoint.split(",")
        return tuple(Address(url, self.engine_key) for url in urls)

    def masked(self) -> dict[str, object]:
        """Return the effective values by variable name, secrets hidden, for the log."""
        values = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        if self.api_key is not None:
            values["VLLM_API_KEY"] = "***"
        return values
