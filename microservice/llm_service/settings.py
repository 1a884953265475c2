"""The service's settings: one frozen model, read from the environment once, at start.

A field's alias is the variable's name, its description is the line in docs/service.md, and `form` says what is
accepted. Nothing here has a second default anywhere else.
"""

import difflib
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from llm_service.address import Address, normalized
from llm_service.environment import cleaned

KEY_FILE = Path("/run/secrets/vllm_api_key")

_OLD_ENDPOINT_NAMES = ("LLM_MODEL_SERVER_ENDPOINT", "LLM_ENDPOINT")
_ENGINE_NAMES = frozenset({"LLM_DEVICE"})
_TYPO_SIMILARITY = 0.85  # LLM_VLLM_ENDPOIN… is ours misspelt; LLM_VLLM_HOST is the engine's own name


class StreamFormat(StrEnum):
    """What a streamed reply to an OPEA request looks like."""

    OPENAI = "openai"
    REPR = "repr"
    BYTES_REPR = "bytes-repr"


class ConnectorName(StrEnum):
    """What carries a request to the engine."""

    GENERIC = "generic"
    LANGCHAIN = "langchain"


class SettingsError(Exception):
    """Settings that cannot be used: a list of (sentence, hint)."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(sentence for sentence, _ in problems))
        self.problems = problems


def _key(value: str) -> str:
    # The key becomes a header, so a blank or a line break in it would be another header.
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("not a key")
    return value


def _lower(value: str) -> str:
    return value.lower()


def _field(name: str, description: str, form: str, default: Any = ..., **limits: Any) -> Any:
    return Field(default, alias=name, description=description, json_schema_extra={"form": form}, **limits)


class Settings(BaseModel):
    """Everything that the service can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = _field("LLM_USVC_HOST", "Address to listen on.", "an address of this machine", "127.0.0.1")
    port: int = _field("LLM_USVC_PORT", "Port to listen on; 0 picks a free one.", "0 to 65535", 9000, ge=0, le=65535)
    endpoint: Annotated[str, BeforeValidator(normalized)] = _field(
        "LLM_VLLM_ENDPOINT",
        "Where the engine is. Older names: `LLM_MODEL_SERVER_ENDPOINT`, `LLM_ENDPOINT`. "
        "Unset, it is this machine at the engine's port, `LLM_VLLM_PORT`.",
        "http://host:port or https://host:port, without /v1, or unix:///path/of/a.socket",
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
    drain_seconds: int = _field(
        "LLM_DRAIN_TIMEOUT_SECONDS",
        "After SIGTERM, how long running replies may take to finish.",
        "whole seconds, 0 or more",
        60,
        ge=0,
    )

    @property
    def engine(self) -> Address:
        """Where the engine is, with its key."""
        return Address(self.endpoint, self.api_key.get_secret_value() if self.api_key else None)

    def masked(self) -> dict[str, object]:
        """Return the effective values by variable name, secrets hidden, for the log."""
        values = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        if self.api_key is not None:
            values["VLLM_API_KEY"] = "***"
        return values


_FIELDS = {str(field.alias): field for field in Settings.model_fields.values()}
_OURS = (*_FIELDS, *_OLD_ENDPOINT_NAMES, "VLLM_API_KEY_FILE", "LLM_MODEL_SERVER")


def load(environ: Mapping[str, str], key_file: Path = KEY_FILE) -> Settings:
    """Read the settings from an environment.

    Raises SettingsError that lists every problem at once: unknown names, bad values, names that contradict.
    """
    given = cleaned(environ)
    problems = _unknown(given)
    values = {name: given[name] for name in _FIELDS if name in given}
    for step in (_fill_endpoint, _fill_key, _check_server):
        try:
            step(given, values, key_file)
        except SettingsError as error:
            problems += error.problems
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += [_bad_value(str(item["loc"][0]), values) for item in error.errors(include_input=False)]
    if problems:
        raise SettingsError(problems)
    return settings


def _unknown(given: Mapping[str, str]) -> list[tuple[str, str]]:
    problems = []
    for name in given:
        if not name.startswith("LLM_") or name in _OURS or name in _ENGINE_NAMES:
            continue
        near = difflib.get_close_matches(name, _OURS, n=1, cutoff=_TYPO_SIMILARITY)
        if name.startswith("LLM_VLLM_") and not near:
            continue
        near = near or difflib.get_close_matches(name, _OURS, n=1, cutoff=0.0)
        problems.append((f"{name}: no such setting.", f"Did you mean {near[0]}? Remove {name} if it is not needed."))
    return problems


def _bad_value(name: str, values: Mapping[str, str]) -> tuple[str, str]:
    extra = _FIELDS[name].json_schema_extra
    form = extra["form"] if isinstance(extra, dict) else ""
    shown = "***" if name == "VLLM_API_KEY" else values[name]
    return f"{name}={shown} is not accepted.", f"{name} takes {form}."


def _fill_endpoint(given: Mapping[str, str], values: dict[str, str], _: Path) -> None:
    name = "LLM_VLLM_ENDPOINT"
    named = {n: given[n] for n in (name, *_OLD_ENDPOINT_NAMES) if n in given}
    if len({value.rstrip("/").removesuffix("/v1") for value in named.values()}) > 1:
        raise SettingsError([(f"{' and '.join(named)} name different engines.", f"Keep {name} only.")])
    if named:
        values[name] = next(iter(named.values()))
    elif port := given.get("LLM_VLLM_PORT"):
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise SettingsError([(f"LLM_VLLM_PORT={port} is not accepted.", "LLM_VLLM_PORT takes 1 to 65535.")])
        values[name] = f"http://127.0.0.1:{port}"


def _fill_key(given: Mapping[str, str], values: dict[str, str], key_file: Path) -> None:
    if "VLLM_API_KEY" in values:
        return
    named = given.get("VLLM_API_KEY_FILE")
    path = Path(named) if named else key_file
    try:
        key = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        if named is None:
            return
        raise _unreadable(path, error) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
    if key:
        values["VLLM_API_KEY"] = key


def _unreadable(path: Path, error: Exception) -> SettingsError:
    reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    return SettingsError(
        [(f"The engine's key cannot be read from {path}: {reason}.", "Let VLLM_API_KEY_FILE name a readable file.")]
    )


def _check_server(given: Mapping[str, str], _values: dict[str, str], _: Path) -> None:
    server = given.get("LLM_MODEL_SERVER", "vllm")
    if server.lower() != "vllm":
        raise SettingsError([(f"LLM_MODEL_SERVER={server} is not accepted.", "The engine is always vllm; remove it.")])
