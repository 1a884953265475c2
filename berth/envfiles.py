"""Reads env files as Compose does, without interpolation, and remembers where each value stands."""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from berth.errors import Exit, failed

SHELL = "the shell"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Setting:
    """One value and its source: "env/cpu.env:7" or "the shell"."""

    name: str
    value: str
    source: str


def read(path: Path, shown_as: str | None = None) -> dict[str, Setting]:
    """Return the settings of one file, the last line winning where a name stands twice.

    Raises BerthError (exit code 2) with file and line number for a line that is no NAME=value, and for a file
    that is missing, unreadable or not UTF-8.
    """
    shown = shown_as or str(path)
    from dotenv.parser import parse_stream

    found: dict[str, Setting] = {}
    text = _text(path, shown)
    for binding in parse_stream(io.StringIO(text, newline="")):
        line = binding.original.line
        if binding.key is None and not binding.error:
            continue
        # dotenv counts from the line after the last binding, which may be a run of empty lines.
        blank = re.match(r"\s*", binding.original.string)
        line += blank[0].count("\n") if blank else 0
        where = f"{shown}:{line}"
        if binding.error or binding.key is None or not _NAME.fullmatch(binding.key):
            raise failed(
                f"{where}: not a line of the form NAME=value",
                "write NAME=value, with quotes closed, or begin the line with # to make it a comment",
                Exit.BAD_SETTING,
            )
        if binding.value is None:
            raise failed(
                f"{where}: {binding.key} has no value",
                f"write {binding.key}= to leave it unset, or delete the line",
                Exit.BAD_SETTING,
            )
        if "\0" in binding.value:
            raise failed(f"{where}: the value of {binding.key} holds a zero byte", "delete that byte", Exit.BAD_SETTING)
        found[binding.key] = Setting(binding.key, binding.value, where)
    return found


def _text(path: Path, shown: str) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise failed(
            f"{shown}: no such file", "the files that come with Berth: ls env/ env/models/", Exit.BAD_SETTING
        ) from None
    except OSError as error:
        raise failed(f"{shown}: cannot be read ({error.strerror})", "give a readable file", Exit.BAD_SETTING) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise failed(f"{shown}:{line}: not UTF-8 text", "save the file as UTF-8", Exit.BAD_SETTING) from error


def layer(files: Iterable[Mapping[str, Setting]], shell: Mapping[str, str]) -> dict[str, Setting]:
    """Merge files, later ones winning, and let the shell win over all, as Compose does.

    A name that the shell sets to nothing counts as set: that is how a shell unsets what a file says.
    """
    merged: dict[str, Setting] = {}
    for file in files:
        merged.update(file)
    for name in merged.keys() & shell.keys():
        merged[name] = Setting(name, shell[name], SHELL)
    return merged
