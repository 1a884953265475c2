"""A batch on this machine: the engine as one program, a plain process or a container, watched until it ends."""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from berth import children
from berth.batch.counting import Count
from berth.deployment import Deployment
from berth.errors import Exit, failed
from berth.host import processes
from berth.host.installing import reason
from berth.paths import shown
from berth.progress import Progress
from engine import credentials, journal
from engine.batch import STOPPED
from engine.growing import Growing
from engine.messages import mask
from engine.phases import STARTING, Phase, phase_of

LOOK_EVERY_S = 0.5
ENDING_S = 20.0
# What a killed command left is finishing its requests, and then tears vLLM down.
LAST_RUN_S = 120.0
LOG = "engine.log"


@dataclass(frozen=True)
class Program:
    """What is started: words, the environment, and what of it is worth showing."""

    argv: list[str]
    cwd: Path
    environ: Mapping[str, str]
    shown_environ: Mapping[str, str] = field(default_factory=dict)

    def line(self, secrets: tuple[str, ...]) -> str:
        """As a person would type it, secrets masked."""
        words = ["env", *(f"{name}={value}" for name, value in self.shown_environ.items() if value)]
        argv = [*words, *self.argv] if self.shown_environ else self.argv
        return mask(f"cd {shlex.quote(str(self.cwd))} && {shlex.join(argv)}", secrets)


class Place(Protocol):
    """One way to run the engine's programs on this machine, for a folder that they share."""

    name: str

    def program(self, deployment: Deployment, folder: Path, words: list[str]) -> Program:
        """The program that runs `python -P WORDS…` with the engine's settings; `{folder}` is the folder in there."""

    def prepare(self, deployment: Deployment, folder: Path, progress: Progress) -> None:
        """Install or pull what is missing, and end what a killed command has left. Raises BerthError."""

    def interrupt(self, folder: Path, process: "subprocess.Popen[bytes]") -> None:
        """Have the program end soon."""


def answering(deployment: Deployment, place: Place, folder: Path) -> Program:
    """The program that answers a batch."""
    return place.program(deployment, folder, ["-m", "engine.batch", "{folder}"])


def answer(deployment: Deployment, place: Place, folder: Path, total: int, progress: Progress) -> None:
    """Have the engine answer what is left. Raises BerthError where it ends before all is done; what is done is kept."""
    place.prepare(deployment, folder, progress)
    _await_last_run(folder, progress)
    count = Count(folder, total)
    code = run(answering(deployment, place, folder), place, folder, count, progress)
    if code:
        raise _ended(code, folder, count)


def run(program: Program, place: Place, folder: Path, count: Count | None, progress: Progress) -> int:
    """Run a program to its end, showing what it does. Whatever ends this early, Ctrl-C too, ends the program."""
    parent = os.getpid()
    with open(folder / LOG, "wb") as log:
        process = subprocess.Popen(
            program.argv,
            cwd=program.cwd,
            env=dict(program.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: children.die_with_parent(parent),
        )
    try:
        phase, growing = Phase(STARTING), Growing(folder / LOG)
        while process.poll() is None:
            for line in growing.lines():
                phase = phase_of(line) or phase
            progress.show((count and count.look()) or phase)
            time.sleep(LOOK_EVERY_S)
        if count:
            progress.show(count.look() or phase)
        return process.returncode
    except BaseException:
        _end(place, folder, process)
        raise


def _end(place: Place, folder: Path, process: "subprocess.Popen[bytes]") -> None:
    place.interrupt(folder, process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(ENDING_S)
    processes.end_session(process.pid, 1.0)
    process.wait()


def signal_it(process: "subprocess.Popen[bytes]") -> None:
    """SIGINT, on which what is being answered is given up; it is answered next time."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)


def _await_last_run(folder: Path, progress: Progress) -> None:
    mine = journal.journal(folder, "0-of-1")
    deadline = time.monotonic() + LAST_RUN_S
    while processes.is_held(mine):
        if time.monotonic() > deadline:
            hint = "end it by hand: `fuser` names the process"
            raise failed(f"an earlier run still writes {shown(mine)}", hint)
        progress.show(Phase("waiting for an earlier run to end"))
        time.sleep(LOOK_EVERY_S)


def _ended(code: int, folder: Path, count: Count) -> Exception:
    log = folder / LOG
    sentence, hint = reason(log.read_text(errors="replace"))
    kept = f"{count.done:,} of {count.total:,} are answered and kept; the same command goes on"
    if code == STOPPED:
        return failed("the batch was stopped", kept)
    known = Exit(code) if code in (Exit.BAD_SETTING, Exit.MISSING_PREREQUISITE) else Exit.FAILED
    return failed(
        sentence or f"the engine ended with {children.in_words(code)}", f"{hint or f'see {shown(log)}'}; {kept}", known
    )


def secrets_of(deployment: Deployment) -> tuple[str, ...]:
    """What must not be shown."""
    return credentials.secrets(deployment.environ)
