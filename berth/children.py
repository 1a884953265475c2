"""One supervised child process with all that it starts: run, watched until ready, stopped without leftovers."""

import asyncio
import contextlib
import ctypes
import os
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from berth import trust
from berth.host import processes

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PROBE_EVERY_S = 0.5
PROBE_TIMEOUT_S = 2.0
ORPHANS_GRACE_S = 5.0
LOADING_GRACE_S = 5.0  # nothing to finish yet; vLLM would sit out its whole shutdown timeout

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent dies, so that they can be waited for."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """In a child, before exec: get SIGTERM when the parent dies, however it dies."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died in between
        os.kill(os.getpid(), signal.SIGTERM)


async def begin(
    argv: Sequence[str], cwd: str | Path | None, environ: Mapping[str, str] | None, log: BinaryIO
) -> asyncio.subprocess.Process:
    """Start a child that leads a process group of its own and does not outlive this process. Raises OSError."""
    parent = os.getpid()
    return await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(parent),
    )


@dataclass
class Child:
    """A child by its plan; `environ` is added to the supervisor's own, a None removes a name."""

    name: str
    argv: list[str]
    cwd: str
    environ: dict[str, str | None]
    ready_url: str
    grace_s: float
    directory: Path
    on_change: Callable[[], None]
    certificate: str = ""
    state: str = "starting"
    pid: int | None = None
    born: int | None = None
    ready: bool = False
    ready_this_time: bool = False
    was_ready: bool = False
    restarts: int = 0
    last_exit: str = ""
    retry_at: float | None = None
    since: float = field(default_factory=time.time)
    _process: asyncio.subprocess.Process | None = None

    def facts(self) -> dict[str, Any]:
        """What the state file says about this child."""
        names = ("state", "pid", "born", "ready", "restarts", "last_exit", "retry_at", "since")
        return {name: getattr(self, name) for name in names}

    async def run(self) -> int:
        """Start, wait for the end, leave nothing of its process group behind. Returns the exit code."""
        environ = {**os.environ, **{name: value for name, value in self.environ.items() if value is not None}}
        for name in [name for name, value in self.environ.items() if value is None]:
            environ.pop(name, None)
        with (self.directory / f"{self.name}.log").open("ab") as log:
            try:
                self._process = await begin(self.argv, self.cwd, environ, log)
            except OSError as error:
                self._become("ended", pid=None, ready=False, last_exit=f"{error.strerror}: {self.argv[0]}")
                return 3
        group = self._process.pid
        self._become("starting", pid=group, born=processes.born(group), ready_this_time=False, retry_at=None)
        probe = asyncio.create_task(self._watch())
        code = await self._process.wait()
        probe.cancel()
        await sweep(group)
        self._become("ended", pid=None, ready=False, last_exit=in_words(code))
        return code

    def wait_to_restart(self, delay: float, lived_s: float) -> None:
        """Note that a start follows in `delay` seconds."""
        self.restarts += 1
        with contextlib.suppress(OSError), open(self.directory / f"{self.name}.log", "a") as log:
            log.write(
                f"berth: {self.name} ended with {self.last_exit} after {lived_s:.0f} s; next start in {delay:.0f} s\n"
            )
        self._become("waiting", retry_at=time.time() + delay)

    async def stop(self, impatient: asyncio.Event) -> None:
        """SIGTERM to the child alone, which drains and ends its own; SIGKILL to the group after the grace time."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._become("stopping", ready=False)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        grace = self.grace_s if self.ready_this_time else LOADING_GRACE_S
        hurry = asyncio.create_task(impatient.wait())
        ended = asyncio.create_task(process.wait())
        await asyncio.wait({hurry, ended}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not ended.done():
            _kill(process.pid, signal.SIGKILL)
        await ended

    async def _watch(self) -> None:
        """Ask until the child answers; from then on it counts as ready until it ends."""
        while not await asyncio.to_thread(_answers, self.ready_url, self.certificate):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(PROBE_EVERY_S)
        self.was_ready = self.ready_this_time = True
        self._become("ready", ready=True)

    def _become(self, state: str, **facts: Any) -> None:
        if state != self.state:
            self.since = time.time()
        self.state = state
        for name, value in facts.items():
            setattr(self, name, value)
        self.on_change()


def _answers(url: str, certificate: str) -> bool:
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]  # no proxy is for this machine
    if isinstance(context := trust.context(certificate), ssl.SSLContext):
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=PROBE_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401  # it asks for a key, so it answers
    except (OSError, ValueError):
        return False


def _kill(group: int, number: int) -> bool:
    """Signal a process group; whether anything was left in it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


async def sweep(group: int) -> None:
    """End what a dead child has left in its process group: vLLM's workers outlive an API server that was killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + ORPHANS_GRACE_S
        _kill(group, number)
        while _kill(group, 0) and time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-group, os.WNOHANG)  # noqa: ASYNC222 - WNOHANG does not block
            await asyncio.sleep(0.05)


def in_words(code: int) -> str:
    """How a process ended: its exit code, or the signal that ended it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
