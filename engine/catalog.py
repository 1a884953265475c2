"""What one vLLM knows: its flags and the environment variables it reads, as written by `write_catalog`."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.messages import Exit, Problem

TRACKED = Path(__file__).resolve().parent / "catalogs"


class CatalogError(Exception):
    """No catalog can be read; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.sentence)
        self.problem = problem


@dataclass(frozen=True)
class Flag:
    """One flag of `vllm serve`, named without the leading dashes."""

    name: str
    type: str  # int, float, str, json or switch
    nargs: str | None = None  # None: one value; "?": may stand alone; "+", "*": a list
    choices: tuple[str, ...] | None = None
    negative: str | None = None  # the --no-… spelling of a switch
    aliases: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    human: bool = False  # takes 1k, 2M and the like
    words: tuple[str, ...] = ()  # words that the parser takes besides numbers, such as "auto"
    none: bool = False  # takes None
    folds: bool = False  # choices regardless of case, and of - or _
    repeats: bool = False  # given once for each element of a list

    @property
    def is_list(self) -> bool:
        """Whether the value is split as a shell would."""
        return self.repeats or self.nargs in ("+", "*")


@dataclass(frozen=True)
class Catalog:
    """The flags and variables of one vLLM, for one device."""

    vllm: str
    device: str
    flags: Mapping[str, Flag]
    variables: frozenset[str]
    variable_types: Mapping[str, str] = field(default_factory=dict)
    variable_choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def by_setting(self) -> Mapping[str, tuple[Flag, bool]]:
        """Setting name to (flag, whether the name is the flag's negative). Environment variables of vLLM's own win."""
        names: dict[str, tuple[Flag, bool]] = {}
        for flag in self.flags.values():
            for spelling in (flag.name, *flag.aliases):
                names[setting_name(spelling)] = (flag, False)
            if flag.negative:
                names[setting_name(flag.negative)] = (flag, True)
        return {name: found for name, found in names.items() if name not in self.variables}

    @cached_property
    def by_option(self) -> Mapping[str, Flag]:
        """Every spelling on a command line (`--flag`, `--no-flag`, `-f`) to its flag."""
        options: dict[str, Flag] = {}
        for flag in self.flags.values():
            for spelling in (flag.name, *flag.aliases, *filter(None, [flag.negative])):
                options[f"--{spelling}"] = flag
            options.update(dict.fromkeys(flag.short, flag))
        return options


def setting_name(flag: str) -> str:
    """`max-model-len` to `VLLM_MAX_MODEL_LEN`: the rule by which every flag is a setting."""
    return "VLLM_" + flag.replace("-", "_").upper()


def parse(text: str) -> Catalog:
    """Read a catalog from JSON. Raises ValueError or KeyError when it is none."""
    raw = json.loads(text)
    return Catalog(
        vllm=raw["vllm"],
        device=raw["device"],
        flags={name: _flag(name, entry) for name, entry in raw["flags"].items()},
        variables=frozenset(raw["variables"]),
        variable_types=dict(raw.get("variable_types", {})),
        variable_choices={name: tuple(choices) for name, choices in raw.get("variable_choices", {}).items()},
    )


def _flag(name: str, entry: Mapping[str, Any]) -> Flag:
    return Flag(
        name=name,
        type=entry["type"],
        nargs=entry["nargs"],
        choices=tuple(entry["choices"]) if entry["choices"] else None,
        negative=entry.get("negative"),
        aliases=tuple(entry["aliases"]),
        short=tuple(entry["short"]),
        human=entry.get("human", False),
        words=tuple(entry.get("words", ())),
        none=entry.get("none", False),
        folds=entry.get("folds", False),
        repeats=entry.get("repeats", False),
    )


def candidates(device: str | None, environ: Mapping[str, str]) -> Iterable[Path]:
    """Where a catalog may be: $BERTH_CATALOG alone if set; else this environment's, then the device's tracked one."""
    if given := environ.get("BERTH_CATALOG"):
        return [Path(given)]
    return [installed_path(), *([TRACKED / f"{device}.json"] if device else [])]


def installed_path() -> Path:
    """Where the catalog of the vLLM in this Python environment is kept."""
    return Path(sys.prefix) / "share" / "berth" / "catalog.json"


def load(device: str | None, environ: Mapping[str, str] | None = None) -> Catalog:
    """Read the catalog for `device`, or for whatever device this environment's vLLM serves when that is None.

    Raises CatalogError when there is none, or when it cannot be read.
    """
    places = list(candidates(device, os.environ if environ is None else environ))
    path = next((place for place in places if os.path.isfile(place)), None)
    if path is None:
        raise CatalogError(
            Problem(
                f"no list of vLLM's flags for {device or 'this installation'}",
                "set LLM_DEVICE to a device, or write the list with `python -m engine.write_catalog --device NAME`",
                Exit.MISSING_PREREQUISITE,
            )
        )
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CatalogError(
            Problem(
                f"{path} is no list of vLLM's flags: {type(error).__name__}",
                "write it again with `python -m engine.write_catalog --device NAME`",
                Exit.MISSING_PREREQUISITE,
            )
        ) from error
