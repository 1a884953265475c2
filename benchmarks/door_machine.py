"""What the benchmarks of the service run on: programs in C made here, cores, and processes that are watched."""

import ctypes
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from containers import HERE, fail

ROOT = HERE.parent
PLACE = ROOT / ".berth" / "door"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cores:
    """One core for the engine and the load, one for the relay."""

    ends: int
    relay: int


def cores() -> Cores:
    """The first two that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        fail("this benchmark needs two cores, and may use one", "run it on a machine with two or more", 3)
    return Cores(usable[0], usable[1])


def program(name: str) -> Path:
    """The path of a program in C that stands beside this file, compiled when it changed."""
    source = HERE / f"{name}.c"
    made = PLACE / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not made.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            fail("there is no C compiler on PATH", "install one: apt-get install gcc libc6-dev", 3)
        PLACE.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-Wall", "-o", f"{made}.new", source], check=True)
        os.replace(f"{made}.new", made)
    return made


def environment(name: str, *files: str) -> Path:
    """The virtual environment .berth/NAME with what the requirement files pin; made when it is missing."""
    words = ["bash", "-c", f'set -euo pipefail; . "{ROOT}/scripts/lib/setup.sh"; berth_venv "$@"', "bash"]
    if subprocess.run([*words, str(ROOT / ".berth" / name), *files], stdout=sys.stderr).returncode:
        fail(f"the environment for {' and '.join(files)} could not be made", "read the lines above", 3)
    return ROOT / ".berth" / name / "bin"


def pinned(core: int) -> Callable[[], None]:
    """For a child, before it runs: stay on one core, be a group of its own, and do not outlive this process."""

    def settle() -> None:
        os.sched_setaffinity(0, {core})
        os.setpgid(0, 0)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return settle


@dataclass
class Watched:
    """A process with its children: stopped and continued, its memory and processor time."""

    process: subprocess.Popen[bytes]

    def pids(self) -> list[int]:
        """The process and those below it."""
        found, at = [self.process.pid], 0
        while at < len(found):
            for task in Path(f"/proc/{found[at]}/task").glob("*/children"):
                found += [int(pid) for pid in task.read_text().split()]
            at += 1
        return found

    def cpu_seconds(self) -> float:
        """Processor time so far, user and system."""
        return sum(map(_ticks, self.pids())) / TICKS_PER_SECOND

    def memory_mib(self, what: str = "VmRSS") -> float:
        """Resident memory now (VmRSS), or at its highest since `forget_peak` (VmHWM)."""
        lines = (line for pid in self.pids() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return sum(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) / 1024

    def forget_peak(self) -> None:
        """Let the highest memory be counted from now on."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def freeze(self) -> None:
        """Stop it where it is, so that it takes nothing of the core."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def settle(self, limit_s: float = 20.0) -> None:
        """Wait until it has ended what clients left: 0.3 s with less than a tenth of a core, at most `limit_s`."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(0.3)
            if self.cpu_seconds() - before < 0.03:
                return

    def end(self) -> None:
        """Terminate it, and kill it when it does not go."""
        for sign, patience in ((signal.SIGCONT, 0.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            try:
                os.killpg(self.process.pid, sign)
                self.process.wait(patience)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
            return


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def start(words: Iterable[str | Path], core: int, log: IO[bytes], **how: Any) -> Watched:
    """Start a program on one core. What it prints goes nowhere, its complaints to `log`."""
    out = subprocess.DEVNULL
    return Watched(subprocess.Popen(list(words), preexec_fn=pinned(core), stdout=out, stderr=log, **how))


def engine(core: int) -> tuple[Watched, int]:
    """The fake engine, and its port."""
    process = subprocess.Popen([program("door_engine")], preexec_fn=pinned(core), stdout=subprocess.PIPE)
    assert process.stdout is not None
    return Watched(process), int(process.stdout.readline())


def load(core: int, port: int, mode: str, streams: int, warm_up: float, seconds: float, *more: str) -> dict[str, Any]:
    """One run of the generator: what it printed. Exits with 1 when it could not go on."""
    words: list[str | Path] = [program("door_load"), *map(str, (port, mode, streams, warm_up, seconds)), *more]
    done = subprocess.run(words, preexec_fn=pinned(core), text=True, capture_output=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        fail(f"the load generator gave up: {said[-1]}", "read the relay's log")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
