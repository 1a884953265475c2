"""`berth launch-many`: several deployments from one TOML file, all of them submitted or none."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berth.errors import BerthError, Exit, Problem, failed
from berth.paths import ROOT, shown
from berth.slurm import durations

EXAMPLE = "apptainer/examples/fleet.toml"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True)
class Wanted:
    """One [[deployment]] of the file, as `berth up` would be told. None: not said."""

    env: tuple[Path, ...]
    where: str = ""
    name: str | None = None
    device: str | None = None
    time_s: int | None = None
    nodes: int | None = None
    replicas: int = 1
    keep_alive_s: int | None = None
    handover_s: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


def read(file: Path) -> list[Wanted]:
    """The deployments of a file. Raises BerthError (exit code 2) with everything that is wrong in it."""
    said = _load(file)
    tables = said.pop("deployment", None)
    if said or not isinstance(tables, list) or not tables:
        what = next(iter(said), "no deployment")
        raise _wrong(f"{shown(file)}: {what}", "a fleet file holds [[deployment]] tables only", f"as {EXAMPLE} does")
    found: list[Wanted] = []
    problems: list[Problem] = []
    for number, one in enumerate(tables, 1):
        try:
            found.append(_wanted(one, file, f"{shown(file)}: deployment {number}"))
        except BerthError as error:
            problems += error.problems
    if problems:
        raise BerthError(problems)
    return found


def _load(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise failed(f"{shown(file)}: {error.strerror}", f"an example: {EXAMPLE}", Exit.BAD_SETTING) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise failed(f"{shown(file)}: not TOML: {error}", f"an example: {EXAMPLE}", Exit.BAD_SETTING) from error


def _wanted(said: Any, file: Path, where: str) -> Wanted:
    if not isinstance(said, dict):
        raise _wrong(where, "not a table", "write [[deployment]], then NAME = VALUE lines")
    if name := said.get("name"):
        where = f"{where} ({name})"
    known = ("name", "env", "device", "time", "nodes", "replicas", "keep_alive", "handover", "settings")
    for key in said:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise _wrong(where, f"{key}: no such name", f"did you mean {near[0]}?" if near else ", ".join(known))
    return Wanted(
        env=_files(said.get("env"), file, where),
        where=where,
        name=_text(said, "name", where),
        device=_text(said, "device", where),
        time_s=_time(said, "time", where),
        nodes=_count(said, "nodes", where),
        replicas=_count(said, "replicas", where) or 1,
        keep_alive_s=_time(said, "keep_alive", where),
        handover_s=_time(said, "handover", where),
        settings=_settings(said.get("settings", {}), where),
    )


def _files(said: Any, file: Path, where: str) -> tuple[Path, ...]:
    names = [said] if isinstance(said, str) else said
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise _wrong(where, "env is no list of files", 'write env = ["env/cpu.env", "env/models/demo.env"]')
    beside = [file.absolute().parent / name for name in names]
    return tuple(path if path.exists() else ROOT / name for path, name in zip(beside, names, strict=True))


def _text(said: Mapping[str, Any], key: str, where: str) -> str | None:
    value = said.get(key)
    if value is not None and not (isinstance(value, str) and value):
        raise _wrong(where, f"{key} is no text", f'write {key} = "…"')
    return value


def _time(said: Mapping[str, Any], key: str, where: str) -> int | None:
    value = said.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _wrong(where, f"{key} = {value}: not a duration", f'write it as "{durations.FORMS}"')
    return durations.parse(str(value), f"{where}: {key}")


def _count(said: Mapping[str, Any], key: str, where: str) -> int | None:
    value = said.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise _wrong(where, f"{key} = {value}: not a number of at least 1", f"write {key} = 2")
    return value


def _settings(said: Any, where: str) -> dict[str, str]:
    if not isinstance(said, dict):
        raise _wrong(where, "settings is no table", 'write settings = { VLLM_MAX_MODEL_LEN = "8192" }')
    for name in said:
        if not _NAME.fullmatch(name):
            raise _wrong(where, f"settings: {name!r} is no name of a setting", "letters, digits and _ only")
    return {name: _setting(name, value, where) for name, value in said.items()}


def _setting(name: str, value: Any, where: str) -> str:
    """The value as an env file would hold it: true and false in small letters, JSON as text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    raise _wrong(where, f"settings: {name} is no text or number", "write JSON as text in single quotes")


def _wrong(where: str, sentence: str, hint: str) -> BerthError:
    return failed(f"{where}: {sentence}", hint, Exit.BAD_SETTING)
