"""Settings become `vllm serve …`, which then takes this process's place.

`python -P -m engine.serve [--dry-run | --check] [vllm flags… | program args…]`
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from engine import arguments, catalog, credentials, devices, names, settings
from engine.messages import Exit, Problem, complain, say


def main() -> int:
    """Run the launcher for this process's arguments and environment; return an exit code where nothing was started."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    return launch(sys.argv[1:], os.environ)


def launch(args: Sequence[str], environ: Mapping[str, str]) -> int:
    """Check, decide and exec. Returns only with --check, with --dry-run or with a problem."""
    mode = args[0] if args and args[0] in ("--check", "--dry-run") else None
    args = list(args[1:] if mode else args)
    if args and not args[0].startswith("-"):
        return _run_program(args, environ, dry=mode is not None)
    if arguments.asks_for_help(args):
        return _become([*settings.program(sys.prefix), "serve", *args], environ, (), dry=mode is not None)
    try:
        known = catalog.load(_wanted_device(environ), environ)
    except catalog.CatalogError as error:
        return _refuse([error.problem], ())
    device = known.device
    secrets = credentials.secrets(environ)
    if device not in devices.names():
        return _refuse([Problem(f"unknown device {device!r}", f"one of {', '.join(devices.names())}")], secrets)
    reading = settings.read(environ, known, device, args)
    for note in reading.notes:
        say(note, secrets)
    if reading.problems or mode == "--check":
        return _refuse(reading.problems, secrets)
    command = settings.command(environ, known, device, args)
    for decision in command.decisions:
        say(str(decision), secrets)
    return _become(command.argv, command.environ, secrets, dry=mode is not None)


def _wanted_device(environ: Mapping[str, str]) -> str | None:
    return environ.get(names.DEVICE) or next(iter(devices.detect()), None)


def _refuse(problems: Sequence[Problem], secrets: Sequence[str]) -> int:
    for problem in problems:
        complain(problem, secrets)
    return max((problem.exit_code for problem in problems), default=Exit.OK)


def _run_program(args: Sequence[str], environ: Mapping[str, str], dry: bool) -> int:
    return _become(args, environ, (), dry)


def _become(argv: Sequence[str], environ: Mapping[str, str], secrets: Sequence[str], dry: bool) -> int:
    if dry:
        from engine.messages import mask

        sys.stdout.write(mask(shlex.join(argv), secrets) + "\n")
        return Exit.OK
    try:
        os.execvpe(argv[0], list(argv), dict(environ))
    except OSError as error:
        hint = f"the first word is a program, or a vLLM flag that begins with a dash; the model is {names.MODEL}"
        complain(Problem(f"{argv[0]}: {error.strerror}", hint), secrets)
    return Exit.MISSING_PREREQUISITE


if __name__ == "__main__":
    sys.exit(main())
