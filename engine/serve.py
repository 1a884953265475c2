"""Settings become `vllm serve …`, which then takes this process's place.

`python -P -m engine.serve [--dry-run | --check] [vllm flags… | program args…]`
"""

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from engine import announce, arguments, catalog, credentials, devices, names, packed, preflight, settings, writable
from engine.decisions import Decision, Situation
from engine.fit import refusal
from engine.messages import Exit, Problem, complain, mask, say
from engine.model import cache_below
from engine.unix_http import remove_stale

_MODES = ("--check", "--dry-run")


def main() -> int:
    """Run the launcher for this process's arguments and environment; return an exit code where nothing was started."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    return launch(sys.argv[1:], os.environ)


def launch(args: Sequence[str], environ: Mapping[str, str], started_by: Callable[[list[str]], list[str]] = list) -> int:
    """Check, decide and exec. Returns only with --check, with --dry-run or with a problem.

    `started_by` makes of the command that serves another one that takes the same flags.
    """
    mode = args[0] if args and args[0] in _MODES else None
    args = list(args[1:] if mode else args)
    if args and not args[0].startswith("-"):
        return _become(args, environ, environ, (), mode)
    if arguments.asks_for_help(args):
        return _become([*settings.program(sys.prefix), "serve", *args], environ, environ, (), mode)
    secrets = credentials.secrets(environ)
    try:
        known = _catalog(environ)
    except catalog.CatalogError as error:
        return _refuse([error.problem], secrets)
    reading = settings.read(environ, known, known.device, args)
    for note in reading.notes:
        say(note, secrets)
    if reading.problems or mode == "--check":
        return _refuse(reading.problems, secrets)
    places, problems = _settle(environ, reading)
    secrets += credentials.of(places)
    ready = replace_environ(reading, places)
    try:
        ready = _unpacked(ready, mode, secrets)
    except packed.BadPack as error:
        return _refuse([error.problem], secrets)
    given = arguments.with_config_file(arguments.values([*ready.args(), *args], known))
    situation = Situation(ready.environ, given, settings.model_path(ready.model))
    problems += preflight.check(situation, known.device)
    problems += [] if problems else refusal.heeded(situation, known.device, environ)
    if stopping := [problem for problem in problems if mode is None or problem.exit_code == Exit.BAD_SETTING]:
        return _refuse(problems if mode is None else stopping, secrets)
    for problem in problems:
        say(f"would stop here: {problem}", secrets)
    command = settings.build(ready, known, args)
    for decision in [*places, *command.decisions]:
        say(str(decision), secrets)
    if mode is None:
        announce.begin(command.environ)
        if remove_stale(given.get("uds", "")):
            say(f"removed {given['uds']}, the socket of an engine that was killed")
    return _become(started_by(command.argv), command.environ, environ, secrets, mode)


def _unpacked(reading: settings.Reading, mode: str | None, secrets: Sequence[str]) -> settings.Reading:
    """The same reading with the folder of a model that comes packed. Raises BadPack."""
    name = reading.model or ""
    if mode is not None and packed.is_packed(name):
        say(f"would unpack {name}", secrets)
        return reading
    found = packed.unpack(name, reading.environ, lambda text: say(text, secrets))
    if found is None:
        return reading
    served = {"served-model-name": ["--served-model-name", found.name]} if found.name else {}
    say(f"serving {found.folder}" + (f" as {found.name}" if found.name else ""), secrets)
    return replace(reading, model=str(found.folder), words={**served, **reading.words})


def _catalog(environ: Mapping[str, str]) -> catalog.Catalog:
    """The flags of the vLLM at hand. Raises CatalogError also for a device that has no module."""
    wanted = environ.get(names.DEVICE)
    _must_exist(wanted)
    known = catalog.load(wanted or next(iter(devices.detect()), None), environ)
    _must_exist(known.device)
    return known


def _must_exist(device: str | None) -> None:
    if device and device not in devices.names():
        hint = f"{names.DEVICE} is one of {', '.join(devices.names())}"
        raise catalog.CatalogError(Problem(f"there is no device {device!r}", hint))


def _settle(environ: Mapping[str, str], reading: settings.Reading) -> tuple[list[Decision], list[Problem]]:
    decisions, problems = writable.settle(reading.environ)
    more, wrong = credentials.settle(environ, reading.environ)
    return [*decisions, *more, *_cache(reading), *announce.settle(reading.environ)], [*problems, *wrong]


def _cache(reading: settings.Reading) -> list[Decision]:
    below = cache_below(reading.model or "", reading.environ)
    return [Decision(f"HF_HUB_CACHE={below}", "the model lies there", {"HF_HUB_CACHE": str(below)})] if below else []


def replace_environ(reading: settings.Reading, decisions: Iterable[Decision]) -> settings.Reading:
    """The same reading with what decisions change in the environment."""
    return replace(reading, environ=settings.applied(reading.environ, decisions))


def _refuse(problems: Sequence[Problem], secrets: Iterable[str]) -> int:
    secrets = tuple(secrets)
    for problem in problems:
        complain(problem, secrets)
    return max((problem.exit_code for problem in problems), default=Exit.OK)


def _become(
    argv: Sequence[str], environ: Mapping[str, str], before: Mapping[str, str], secrets: Sequence[str], mode: str | None
) -> int:
    """Take the program's place, or print what would be run, with the variables that differ from this environment."""
    if mode is not None:
        changed = [f"{name}={value}" for name, value in sorted(environ.items()) if before.get(name) != value]
        words = ["env", *changed, *argv] if changed else list(argv)
        sys.stdout.write(shlex.join(mask(word, secrets) for word in words) + "\n")
        return Exit.OK
    try:
        os.execvpe(argv[0], list(argv), dict(environ))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        hint = f"the first word is a program, or a vLLM flag that begins with a dash; the model is {names.MODEL}"
        complain(Problem(f"{argv[0]}: {reason}", hint), secrets)
    return Exit.MISSING_PREREQUISITE


if __name__ == "__main__":
    sys.exit(main())
