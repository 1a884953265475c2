"""A resource definition's OpenAPI schema, applied as an API server applies it: unknown fields are errors here, too."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Schema = Mapping[str, Any]
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


@functools.cache
def schema(folder: Path, kind: str, version: str) -> Schema:
    """The schema of a kind's version, from KServe's `config/crd/full`."""
    definition = _read(folder / f"serving.kserve.io_{kind.lower()}s.yaml")
    found = next(each for each in definition["spec"]["versions"] if each["name"] == version)
    wanted: Schema = found["schema"]["openAPIV3Schema"]
    return wanted


def _read(file: Path) -> Any:
    """Two MB of YAML, by the library in C where it is there."""
    return yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def wrong(given: Any, schema: Schema, where: str = "") -> Iterator[str]:
    """What an API server would refuse, or drop."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(given, (int, str)):
            yield f"{where}: {given!r} is neither a number nor a string"
        return
    kind = schema.get("type")
    if kind and (not isinstance(given, TYPES[kind]) or (kind == "integer" and isinstance(given, bool))):
        yield f"{where}: {given!r} is no {kind}"
        return
    if "enum" in schema and given not in schema["enum"]:
        yield f"{where}: {given!r} is none of {schema['enum']}"
    if isinstance(given, dict):
        yield from _wrong_object(given, schema, where)
    if isinstance(given, list):
        for place, each in enumerate(given):
            yield from wrong(each, schema.get("items", {}), f"{where}[{place}]")


def _wrong_object(given: Mapping[str, Any], schema: Schema, where: str) -> Iterator[str]:
    known, rest = schema.get("properties", {}), schema.get("additionalProperties")
    for name in schema.get("required", ()):
        if name not in given:
            yield f"{where}: {name} is missing"
    for name, value in given.items():
        if name in known:
            yield from wrong(value, known[name], f"{where}.{name}")
        elif isinstance(rest, Mapping):
            yield from wrong(value, rest, f"{where}.{name}")
        elif known and not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{where}: {name} is no field of it"
