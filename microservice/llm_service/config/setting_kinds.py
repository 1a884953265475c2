"""What a setting may be: its kinds of values, and how a field says what it takes."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field


class StreamFormat(StrEnum):
    """What a streamed reply to an OPEA request looks like."""

    OPENAI = "openai"
    REPR = "repr"
    BYTES_REPR = "bytes-repr"


class ConnectorName(StrEnum):
    """What carries a request to the engine."""

    GENERIC = "generic"
    LANGCHAIN = "langchain"


def key(value: str) -> str:
    """Take a key; raise ValueError when it could not be shown."""
    # The key becomes a header, so a blank or a line break in it would be another header.
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("not a key")
    return value


def absolute(value: str) -> Path:
    """Take an absolute path; raise ValueError for another."""
    if not value.startswith("/"):
        raise ValueError("not absolute")
    return Path(value)


def paths(value: object) -> object:
    """Take a list of paths with commas between; raise ValueError when one is no plain path."""
    if not isinstance(value, str):
        return value
    found = tuple(path.strip() for path in value.split(","))
    if not all(re.fullmatch(r"(/[A-Za-z0-9_.-]+)+", path) and ".." not in path for path in found):
        raise ValueError("not paths")
    return found


def origins(value: object) -> object:
    """Take a list of origins with commas between; raise ValueError when one is none."""
    if not isinstance(value, str):
        return value
    found = tuple(origin.strip() for origin in value.split(","))
    if found != ("*",) and not all(re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+", origin) for origin in found):
        raise ValueError("not origins")
    return found


def collector(value: str) -> str:
    """Take the address of a collector of traces; raise ValueError for another."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ValueError("no address")
    return value


def lower(value: str) -> str:
    """Take a word in capitals or not."""
    return value.lower()


def described(name: str, description: str, form: str, default: Any = ..., **limits: Any) -> Any:
    """Return a field: the variable's name, its line in docs/service.md, what it takes, and pydantic's limits."""
    return Field(default, alias=name, description=description, json_schema_extra={"form": form}, **limits)
