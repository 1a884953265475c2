"""Writes down what the vLLM in this Python environment knows, with or without the device it is for.

`python -P -m engine.write_catalog --device cpu [--output FILE]`. Needs vLLM; everything else in this package does not.
"""

import argparse
import json
import os
import re
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from engine import devices
from engine.catalog import installed_path
from engine.messages import say

_READS_ENVIRONMENT = re.compile(r"""os\.(?:environ\.get\(|getenv\(|environ\[)\s*["'](VLLM_[A-Z0-9_]+)["']""")


def _force_platform(device: str) -> None:
    """Name the platform, since vLLM builds no parser where it finds no device ("Failed to infer device type")."""
    platforms: Any = import_module("vllm.platforms")
    base: Any = import_module("vllm.platforms.interface").UnspecifiedPlatform
    platforms._current_platform = type("ForcedPlatform", (base,), {"device_type": device})()


def _accepts(convert: Callable[[str], object], text: str) -> bool:
    try:
        convert(text)
    except Exception:  # converters raise whatever they like; any failure is a "no"
        return False
    return True


def _value_type(convert: Callable[[str], Any]) -> str:
    """Tell a converter's type by what it takes, which outlives renamed helper functions."""
    if _accepts(convert, "no-such-value"):
        return "str"
    if _accepts(convert, "1") and not _accepts(convert, "{}") and not _accepts(convert, "[]"):
        return "float" if _accepts(convert, "1.5") else "int"
    return "json"


def _describe(action: argparse.Action) -> dict[str, Any]:
    long = [option[2:] for option in action.option_strings if option.startswith("--")]
    short = [option for option in action.option_strings if not option.startswith("--")]
    entry: dict[str, Any] = {"nargs": action.nargs, "choices": None, "short": short}
    if action.nargs == 0:
        negative = next((name for name in long if name.startswith("no-") and name[3:] in long), None)
        positive = [name for name in long if name != negative]
        return entry | {"type": "switch", "nargs": None, "aliases": positive[1:], "negative": negative}
    convert: Callable[[str], Any] = action.type if callable(action.type) else str
    entry["type"] = _value_type(convert)
    entry["aliases"] = long[1:]
    entry["optional_value"] = action.nargs == "?"
    if action.choices is not None:
        entry["choices"] = [str(choice) for choice in action.choices if choice is not None]
        entry["folds"] = _accepts(convert, "A-B") and convert("A-B") == "a_b"
    if entry["type"] in ("int", "float"):
        entry["human"] = _accepts(convert, "1k")
        entry["words"] = [word for word in ("auto",) if _accepts(convert, word)]
    entry["none"] = _accepts(convert, "None") and convert("None") is None
    entry["repeats"] = isinstance(action, argparse._AppendAction)
    return entry


def _compact(entry: dict[str, Any]) -> dict[str, Any]:
    required = ("type", "nargs", "choices", "optional_value", "short", "aliases")
    entry.setdefault("optional_value", False)
    return {key: entry[key] for key in required} | {
        key: value for key, value in entry.items() if key not in required and value
    }


def _flags() -> dict[str, dict[str, Any]]:
    parser_class: Any = import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    make_arg_parser: Any = import_module(_parser_module()).make_arg_parser
    flags = {}
    for action in make_arg_parser(parser_class(prog="vllm serve"))._actions:
        names = [option[2:] for option in action.option_strings if option.startswith("--")]
        if names and "help" not in names:
            flags[names[0]] = _compact(_describe(action))
    return dict(sorted(flags.items()))


def _parser_module() -> str:
    """The module of `make_arg_parser`, which moved between vLLM 0.26 and 0.32."""
    for name in ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args"):
        try:
            import_module(name)
        except ModuleNotFoundError:
            continue
        return name
    raise SystemExit("berth: error: this vLLM has no make_arg_parser where 0.26 to 0.32 have it")


def _read_in_source(package: Path) -> Iterable[str]:
    for path in package.rglob("*.py"):
        yield from _READS_ENVIRONMENT.findall(path.read_text(encoding="utf-8", errors="replace"))


def _with_environment(name: str, value: str, read: Callable[[], object]) -> Exception | None:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        read()
    except Exception as error:  # a reader that refuses a value says so in a way of its own
        return error
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    return None


def _variable_facts(readers: dict[str, Callable[[], object]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Which variables want a number or one of a few words, found by asking vLLM's own readers."""
    types: dict[str, str] = {}
    choices: dict[str, list[str]] = {}
    for name, read in readers.items():
        error = _with_environment(name, "no-such-value", read)
        if not isinstance(error, ValueError):
            continue
        if listed := re.search(r"Valid options: \[(.*?)\]", str(error)):
            choices[name] = re.findall(r"'([^']*)'", listed[1])
        elif _with_environment(name, "1", read) is None:
            types[name] = "int" if _with_environment(name, "1.5", read) else "float"
    return types, choices


def collect(device: str) -> dict[str, Any]:
    """Return the catalog of the vLLM in this environment, as plain data."""
    os.environ["VLLM_PLUGINS"] = ""  # a device's plugin adds no flags, and loads software that looks for its device
    _force_platform(device)
    vllm: Any = import_module("vllm")
    readers = import_module("vllm.envs").environment_variables
    types, choices = _variable_facts(readers)
    flags = _flags()
    return {
        "vllm": vllm.__version__.partition("+")[0],
        "device": device,
        "flags": flags,
        "variables": sorted({*readers, *_read_in_source(Path(vllm.__file__).parent)}),
        "variable_types": dict(sorted(types.items())),
        "variable_choices": dict(sorted(choices.items())),
    }


def render(catalog: dict[str, Any]) -> str:
    """JSON with one flag or variable a line, so that a change of vLLM's version reads well as a diff."""
    parts = []
    for key, value in catalog.items():
        if isinstance(value, dict):
            lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in value.items()]
            parts.append(f" {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n }")
        elif isinstance(value, list):
            parts.append(f" {json.dumps(key)}: [\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    """Write the catalog to --output, by default to this environment's `share/berth/catalog.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, choices=devices.names())
    parser.add_argument("--output", type=Path, default=installed_path())
    args = parser.parse_args()
    catalog = collect(args.device)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(render(catalog), encoding="utf-8")
    flags, variables = len(catalog["flags"]), len(catalog["variables"])
    say(f"wrote {args.output} (vLLM {catalog['vllm']}: {flags} flags, {variables} variables)")


if __name__ == "__main__":
    main()
