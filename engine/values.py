"""Turns the text of one setting into the words of one flag, refusing what vLLM's parser would refuse."""

import json
import re
import shlex

from engine.catalog import Flag
from engine.messages import Problem

TRUE_WORDS = frozenset({"true", "1", "yes", "on"})
FALSE_WORDS = frozenset({"false", "0", "no", "off"})

_HUMAN = re.compile(r"\s*(\d+(?:\.\d+)?)([kKmMgGtT])\s*")
_HUMAN_IN_JSON = re.compile(r'("(?:[^"\\]|\\.)*")|\b\d+(?:\.\d+)?[kKmMgGtT]\b')
_LIKE_A_NUMBER = re.compile(r"-\d+|-\d*\.\d+")


class BadValue(Exception):
    """A value that its setting cannot take; `problem` says why."""

    def __init__(self, sentence: str, hint: str) -> None:
        super().__init__(sentence)
        self.problem = Problem(sentence, hint)


def as_switch(setting: str, value: str) -> bool:
    """Read true/false, 1/0, yes/no or on/off, in any case. Raises BadValue for anything else."""
    word = value.strip().lower()
    if word in TRUE_WORDS | FALSE_WORDS:
        return word in TRUE_WORDS
    hint = f"write {setting}=true or {setting}=false"
    raise BadValue(f"{setting}={_short(value)}: a switch takes true or false", hint)


def words(setting: str, flag: Flag, value: str, negated: bool = False) -> list[str]:
    """Return the command-line words for `setting=value`, in a form that the parser reads as that value.

    `negated` says that the setting is named for the flag's --no-… spelling. Raises BadValue.
    """
    if flag.type == "switch":
        on = as_switch(setting, value) != negated
        return [f"--{flag.name}"] if on else [f"--{flag.negative}"] if flag.negative else []
    if flag.nargs == "?" and value.strip().lower() in TRUE_WORDS | FALSE_WORDS:
        return [f"--{flag.name}"] if as_switch(setting, value) else []
    if not flag.is_list:
        _check(setting, flag, value)
        return _pair(flag.name, value)
    elements = split(setting, value)
    for element in elements:
        _check(setting, flag, element)
    if flag.repeats:
        return [word for element in elements for word in _pair(flag.name, element)]
    return _joined(setting, flag, elements)


def split(setting: str, value: str) -> list[str]:
    """Split as a shell would, without expanding anything. Raises BadValue for an open quote."""
    try:
        return shlex.split(value)
    except ValueError as error:
        raise BadValue(
            f"{setting}: cannot be split into words ({error})", "close the quotation, or drop the quote sign"
        ) from error


def _pair(name: str, value: str) -> list[str]:
    """The equals form only where a leading dash looks like a flag: vLLM knows `--config` by its bare word alone."""
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def _joined(setting: str, flag: Flag, elements: list[str]) -> list[str]:
    if not elements:
        return []
    if len(elements) == 1:
        return _pair(flag.name, elements[0])
    if dashed := [element for element in elements if element.startswith("-") and not _LIKE_A_NUMBER.fullmatch(element)]:
        raise BadValue(
            f"{setting}: {_short(dashed[0])} in a list would be read as a flag of its own",
            "an element of a list cannot begin with a dash",
        )
    return [f"--{flag.name}", *elements]


def _check(setting: str, flag: Flag, value: str) -> None:
    if flag.none and value == "None":
        return
    if flag.choices is not None:
        _check_choice(setting, flag, value)
    elif flag.type == "int":
        _check_int(setting, flag, value)
    elif flag.type == "float":
        check_number(setting, "float", value)
    elif flag.type == "json":
        _check_json(setting, value)


def _check_choice(setting: str, flag: Flag, value: str) -> None:
    choices = flag.choices or ()
    folded = value.lower().replace("-", "_") if flag.folds else value
    if folded not in choices:
        raise BadValue(f"{setting}={_short(value)}: not one of its values", f"it takes {', '.join(choices)}")


def _check_int(setting: str, flag: Flag, value: str) -> None:
    if value.strip().lower() in flag.words:
        return
    if flag.human and (match := _HUMAN.fullmatch(value)):
        number, suffix = match.groups()
        if "." in number and suffix.isupper():
            raise BadValue(
                f"{setting}={_short(value)}: no decimals with {suffix}, which counts in powers of two",
                f"write {number}{suffix.lower()} to count in powers of ten",
            )
        return
    check_number(setting, "int", value, "4096 or 4k" if flag.human else "8")


def check_number(setting: str, kind: str, value: str, example: str = "8") -> None:
    """Raise BadValue unless `value` is a number: whole for the kind "int", any for "float"."""
    try:
        (int if kind == "int" else float)(value)
    except ValueError:
        noun = "whole number" if kind == "int" else "number"
        example = example if kind == "int" else "0.9"
        raise BadValue(f"{setting}={_short(value)}: not a {noun}", f"give a {noun} such as {example}") from None


def _check_json(setting: str, value: str) -> None:
    expanded = _HUMAN_IN_JSON.sub(lambda match: match[1] or "0", value)
    for text in (value, expanded):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            continue
        return
    hint = 'write JSON without quotes around the whole, such as {"key": 1}'
    raise BadValue(f"{setting}={_short(value)}: not JSON", hint)


def _short(value: str) -> str:
    return repr(value if len(value) <= 60 else value[:57] + "…")
