"""The service's settings: one frozen model, which `loading` reads from the environment once, at start.

A field's alias is the variable's name, its description is the line in docs/service.md, and `form` says what is
accepted. Nothing here has a second default anywhere else.
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from llm_service.address import Address, normalized_all

KEY_FILE = Path("/run/secrets/vllm_api_key")


class StreamFormat(StrEnum):
    """What a streamed reply to an OPEA request looks like."""

    OPENAI = "openai"
    REPR = "repr"
    BYTES_REPR = "bytes-repr"


class ConnectorName(StrEnum):
    """What carries a request to the engine."""

    GENERIC = "generic"
    LANGCHAIN = "langchain"


def _key(value: str) -> str:
    # The key becomes a header, so a blank or a line break in it would be another header.
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("not a key")
    return value


def _absolute(value: str) -> Path:
    if not value.startswith("/"):
        raise ValueError("not absolute")
    return Path(value)


def _lower(value: str) -> str:
    return value.lower()


def _field(name: str, description: str, form: str, default: Any = ..., **limits: Any) -> Any:
    return Field(default, alias=name, description=description, json_schema_extra={"form": form}, **limits)


class Settings(BaseModel):
    """Everything that the service can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = _field("LLM_USVC_HOST", "Address to listen on.", "an address of this machine", "127.0.0.1")
    port: int = _field("LLM_USVC_PORT", "Port to listen on; 0 picks a free one.", "0 to 65535", 9000, ge=0, le=65535)
    endpoint: Annotated[str, BeforeValidator(normalized_all)] = _field(
        "LLM_VLLM_ENDPOINT",
        "Where the engine is, or several, or the directory in which their jobs keep an endpoint.json each. "
        "Older names: `LLM_MODEL_SERVER_ENDPOINT`, `LLM_ENDPOINT`. "
        "Unset, it is this machine at the engine's port, `LLM_VLLM_PORT`.",
        "http://host:port or https://host:port, without /v1; unix:///path/of/a.socket; "
        "several of these with commas between; or the absolute path of a directory",
        "http://127.0.0.1:8008",
    )
    model: str | None = _field(
        "LLM_MODEL_NAME",
        "Model for requests that name none. Unset: the one that the engine lists.",
        "a model that the engine serves",
        None,
    )
    engine_model: str | None = _field(
        "LLM_VLLM_MODEL_NAME",
        "The engine's setting. Of several models that an engine lists, this one is the default, else the first.",
        "a model name",
        None,
    )
    api_key: Annotated[SecretStr, BeforeValidator(_key)] | None = _field(
        "VLLM_API_KEY",
        "Key that the engine asks for. `VLLM_API_KEY_FILE` names a file with it "
        f"(`{KEY_FILE}` is read when it is there).",
        "printable characters without blanks",
        None,
    )
    keys_file: Annotated[Path, BeforeValidator(_absolute)] | None = _field(
        "LLM_API_KEYS_FILE",
        "File with the keys of this service's clients, one a line. When set, every path asks for one of them.",
        "the absolute path of a file",
        None,
    )
    stream_format: Annotated[StreamFormat, BeforeValidator(_lower)] = _field(
        "LLM_STREAM_FORMAT",
        "Shape of streamed replies to OPEA requests: OpenAI's chunks, or the Python literals of older releases.",
        "openai, repr or bytes-repr",
        StreamFormat.OPENAI,
    )
    disable_streaming: bool = _field(
        "LLM_DISABLE_STREAMING",
        "Answer OPEA requests whole, whatever they ask for; OpenAI's form gets an error when it asks for a stream.",
        "true or false",
        False,
    )
    connector: Annotated[ConnectorName, BeforeValidator(_lower)] = _field(
        "LLM_CONNECTOR",
        "What carries requests to the engine. `langchain` needs the optional extra of that name.",
        "generic or langchain",
        ConnectorName.GENERIC,
    )
    connect_seconds: float = _field(
        "LLM_CONNECT_TIMEOUT_SECONDS", "Longest wait for a connection to the engine.", "seconds above 0", 5.0, gt=0
    )
    first_byte_seconds: float = _field(
        "LLM_FIRST_BYTE_TIMEOUT_SECONDS",
        "Longest wait for the first byte of a reply; for one that is not streamed, the longest wait at all.",
        "seconds above 0",
        600.0,
        gt=0,
    )
    idle_seconds: float = _field(
        "LLM_IDLE_TIMEOUT_SECONDS", "Longest silence of the engine within a stream.", "seconds above 0", 60.0, gt=0
    )
    pool_wait_seconds: float = _field(
        "LLM_POOL_WAIT_SECONDS",
        "With several engines, how long a request waits for one that is ready before it gets 503.",
        "seconds, 0 or more",
        10.0,
        ge=0,
    )
    drain_seconds: int = _field(
        "LLM_DRAIN_TIMEOUT_SECONDS",
        "After SIGTERM, how long running replies may take to finish.",
        "whole seconds, 0 or more",
        60,
        ge=0,
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
