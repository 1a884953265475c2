"""Reading the settings from the environment: every problem at once, each with a hint that names the fix."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from llm_service.config.environment import cleaned
from llm_service.config.settings import KEY_FILE, Settings
from llm_service.lock import exposure
from llm_service.lock.keys import KeysError, read_keys
from llm_service.port.tls import CertificateError, context_of

_OLD_ENDPOINT_NAMES = ("LLM_MODEL_SERVER_ENDPOINT", "LLM_ENDPOINT")
_ENGINE_NAMES = frozenset({"LLM_DEVICE"})
_TYPO_SIMILARITY = 0.85  # LLM_VLLM_ENDPOIN… is ours misspelt; LLM_VLLM_HOST is the engine's own name

_FIELDS = {str(field.alias): field for field in Settings.model_fields.values()}
OURS = (*_FIELDS, *_OLD_ENDPOINT_NAMES, "VLLM_API_KEY_FILE", "LLM_MODEL_SERVER")


class SettingsError(Exception):
    """Settings that cannot be used: a list of (sentence, hint)."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(sentence for sentence, _ in problems))
        self.problems = problems


def load(environ: Mapping[str, str], key_file: Path = KEY_FILE) -> Settings:
    """Read the settings from an environment.

    Raises SettingsError that lists every problem at once: unknown names, bad values, names that contradict.
    """
    given = cleaned(environ)
    problems = _unknown(given)
    values = {name: given[name] for name in _FIELDS if name in given}
    for step in (
        _fill_endpoint,
        _fill_key,
        _fill_traces,
        _check_directory,
        _check_keys_file,
        _check_certificate,
        _check_server,
    ):
        try:
            step(given, values, key_file)
        except SettingsError as error:
            problems += error.problems
    try:
        settings = Settings.model_validate(values)
        problems += exposure.problems(settings)
    except ValidationError as error:
        problems += [_bad_value(str(item["loc"][0]), values) for item in error.errors(include_input=False)]
    if problems:
        raise SettingsError(problems)
    return settings


def _unknown(given: Mapping[str, str]) -> list[tuple[str, str]]:
    problems = []
    for name in given:
        if not name.startswith("LLM_") or name in OURS or name in _ENGINE_NAMES:
            continue
        near = difflib.get_close_matches(name, OURS, n=1, cutoff=_TYPO_SIMILARITY)
        if name.startswith("LLM_VLLM_") and not near:
            continue
        near = near or difflib.get_close_matches(name, OURS, n=1, cutoff=0.0)
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


def _fill_traces(given: Mapping[str, str], values: dict[str, str], _: Path) -> None:
    name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    switches = (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"))
    if any(given.get(switch, "").lower() == off for switch, off in switches):
        values.pop(name, None)
    elif name not in values and (base := given.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        values[name] = f"{base.rstrip('/')}/v1/traces"
    for protocol in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if name in values and given.get(protocol, "http/protobuf") != "http/protobuf":
            hint = f"Set {protocol}=http/protobuf, and the endpoint to the port for it, usually 4318."
            raise SettingsError([(f"{protocol}={given[protocol]}: traces go over HTTP only.", hint)])


def _check_directory(_given: Mapping[str, str], values: dict[str, str], _: Path) -> None:
    path = values.get("LLM_VLLM_ENDPOINT", "")
    # One that is not there yet may come with the first job.
    if not path.startswith("/") or not os.path.exists(path):
        return
    is_directory = os.path.isdir(path)
    if not (is_directory and os.access(path, os.R_OK | os.X_OK)):
        reason = "this user may not read it" if is_directory else "it is no directory"
        hint = "Name the directory in which the engines' jobs keep their endpoint.json, or put unix:// before a socket."
        raise SettingsError([(f"LLM_VLLM_ENDPOINT={path} is not accepted: {reason}.", hint)])


def _check_keys_file(given: Mapping[str, str], _values: dict[str, str], _: Path) -> None:
    path = given.get("LLM_API_KEYS_FILE", "")
    if path.startswith("/"):
        try:
            read_keys(Path(path))
        except KeysError as error:
            hint = "Let LLM_API_KEYS_FILE name a file that this user may read, with one key a line."
            raise SettingsError([(str(error), hint)]) from None


def _check_certificate(given: Mapping[str, str], _values: dict[str, str], _: Path) -> None:
    names = ("LLM_TLS_CERT_FILE", "LLM_TLS_KEY_FILE")
    named = [given[name] for name in names if name in given]
    if len(named) == 1:
        raise SettingsError([("One of the two files for TLS is missing.", f"Set {names[0]} and {names[1]}.")])
    if named and all(path.startswith("/") for path in named):
        try:
            context_of(*map(Path, named))
        except CertificateError as error:
            hint = f"Let {names[0]} and {names[1]} name files in PEM form that this user may read."
            raise SettingsError([(str(error), hint)]) from None


def _check_server(given: Mapping[str, str], _values: dict[str, str], _: Path) -> None:
    server = given.get("LLM_MODEL_SERVER", "vllm")
    if server.lower() != "vllm":
        raise SettingsError([(f"LLM_MODEL_SERVER={server} is not accepted.", "The engine is always vllm; remove it.")])
