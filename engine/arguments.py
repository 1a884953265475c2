"""Reads an argument list as vLLM's parser would: which flags it names, and with which values."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from engine.catalog import Catalog, Flag
from engine.messages import Problem
from engine.names import SECRET_FLAGS

_HELP = frozenset({"-h", "--help", "-v", "--version"})


def asks_for_help(args: Sequence[str]) -> bool:
    """Whether vLLM is only to describe itself, which needs no settings."""
    return any(arg in _HELP or arg.startswith("--help=") for arg in args)


def options(args: Sequence[str], catalog: Catalog) -> Iterator[tuple[str, Flag | None, str | None]]:
    """Yield (as typed, flag or None if unknown, value or None) for every option in `args`.

    Knows what vLLM's parser allows: underscores for dashes, unique abbreviations, `--flag=value`, dotted keys of JSON
    flags, and `-O3`. A value is the first word after the option that is no option.
    """
    for index, arg in enumerate(args):
        if not arg.startswith("-") or arg.strip("-") == "" or _is_negative_number(arg):
            continue
        typed, equals, value = arg.partition("=")
        following = args[index + 1] if index + 1 < len(args) else None
        if following is not None and following.startswith("-") and not _is_negative_number(following):
            following = None
        yield typed, _find(typed, catalog), value if equals else following


def _find(typed: str, catalog: Catalog) -> Flag | None:
    key = typed.partition(".")[0].rstrip("+")
    if not key.startswith("--"):
        return catalog.flags.get("optimization-level") if key.startswith("-O") else catalog.by_option.get(key)
    key = key.replace("_", "-")
    if key in catalog.by_option:
        return catalog.by_option[key]
    meant = [option for option in catalog.by_option if option.startswith(key)]
    return catalog.by_option[meant[0]] if len(meant) == 1 else None


def _is_negative_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def values(args: Sequence[str], catalog: Catalog) -> dict[str, str]:
    """Return what each named flag is set to, the last mention winning; switches read "true" or "false"."""
    found: dict[str, str] = {}
    for typed, flag, value in options(args, catalog):
        if flag is None:
            continue
        if flag.type == "switch":
            value = "false" if typed.replace("_", "-") == f"--{flag.negative}" else "true"
        found[flag.name] = value or ""
    return found


def with_config_file(found: dict[str, str]) -> dict[str, str]:
    """Add what the YAML file of --config says at its top level: a flag that it sets is given, too."""
    try:
        text = Path(found.get("config", "")).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return found
    pairs = re.findall(r"^([\w-]+):[ \t]*(.*?)[ \t]*$", text, re.MULTILINE)
    return {name.replace("_", "-"): value.strip("'\"") for name, value in pairs} | found


def problems(args: Sequence[str], catalog: Catalog, where: str) -> list[Problem]:
    """Refuse unknown long flags, and flags that would put a secret on an argument list. `where` names the source."""
    found = []
    for typed, flag, value in options(args, catalog):
        if flag is None and typed.startswith("--"):
            near = get_close_matches(typed.replace("_", "-"), catalog.by_option, n=1)
            hint = f"did you mean {near[0]}?" if near else "`--help=all` lists every flag"
            found.append(Problem(f"{where}: vLLM {catalog.vllm} has no flag {typed}", hint))
        elif flag is not None and flag.name in SECRET_FLAGS and value is not None:
            found.append(
                Problem(
                    f"{where}: --{flag.name} would show its secret in the process list",
                    f"use {SECRET_FLAGS[flag.name]}",
                )
            )
    return found
