"""`python -m berth`: runs a command; every failure is one sentence, a hint and an exit code."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from berth.errors import BerthError, Exit, Problem
from engine.credentials import secrets
from engine.messages import complain

INTERRUPTED = 130


def main() -> int:
    """Run the command line of this process; return its exit code."""
    arguments = sys.argv[1:]
    flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug, as_json = "--debug" in flags, "--json" in flags
    if debug:
        arguments.remove("--debug")
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    signal.signal(signal.SIGHUP, _as_ctrl_c)
    try:
        return _run(arguments)
    except BerthError as error:
        if debug:
            raise
        return _complain(error.problems, as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `berth logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception as error:
        if debug:
            raise
        said = f"{type(error).__name__}: {error}"
        return _complain(
            [Problem(f"unexpected: {said}", "run it again with --debug for the whole story", Exit.FAILED)], as_json
        )


def _run(arguments: Sequence[str]) -> int:
    """Run typer without its own ending, so that wrong usage looks like every other error."""
    from typer.exceptions import TyperException

    from berth.cli import app

    try:
        return int(app(list(arguments), prog_name="berth", standalone_mode=False) or Exit.OK)
    except TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "berth")
        sentence = error.format_message() if hasattr(error, "format_message") else str(error)
        hint = f"see: scripts/{command.replace('berth ', 'berth ', 1)} --help"
        raise BerthError(Problem(sentence.strip().rstrip("."), hint, Exit.BAD_SETTING)) from error


def _complain(problems: Sequence[Problem], as_json: bool) -> int:
    hidden = secrets(os.environ)
    for problem in problems:
        complain(problem, hidden)
    if as_json:
        listed = [{"error": problem.sentence, "hint": problem.hint} for problem in problems]
        print(json.dumps({"problems": listed, "exit_code": int(problems[0].exit_code)}))
    return int(problems[0].exit_code)


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    """SIGTERM and a closed terminal stop things the way Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
