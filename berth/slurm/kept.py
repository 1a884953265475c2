"""One child process that is started again whenever it ends: a tunnel, or the door behind which tunnels lie."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from berth.children import begin, sweep
from berth.host import processes

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
LASTED_S = 10.0  # a child that lived as long was no failed attempt: the next wait is short again
GRACE_S = 10.0
_NOISE = ("Warning: Permanently added", "** WARNING", "** This session", "** The server may")


class Kept:
    """A child and its log. `argv` is asked before every start, since a free port may have been taken meanwhile."""

    def __init__(
        self,
        argv: Callable[[], list[str]],
        log: Path,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._argv, self.log, self._environ, self._cwd = argv, log, environ, cwd
        self.pid: int | None = None
        self.born: int | None = None
        self.ends = 0
        self.since = time.monotonic()
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to keep it."""
        self._task = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        delay = FIRST_DELAY_S
        while not self._stopping.is_set():
            began = time.monotonic()
            await self._run()
            self.ends += 1
            delay = FIRST_DELAY_S if time.monotonic() - began > LASTED_S else min(delay * 2, LONGEST_DELAY_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _run(self) -> None:
        """Start it and wait for its end; nothing of its process group is left behind."""
        with self.log.open("ab") as log:
            try:
                self._process = await begin(self._argv(), self._cwd, self._environ, log)
            except OSError as error:
                log.write(f"{error.filename}: {error.strerror}\n".encode())
                return
        self.pid, self.born = self._process.pid, processes.born(self._process.pid)
        self.since = time.monotonic()
        if self._stopping.is_set():  # asked while it was being started
            self._process.terminate()
        await self._process.wait()
        await sweep(self._process.pid)
        self.pid = self.born = None

    def again(self) -> None:
        """End what runs now; its successor follows."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)

    async def stop(self) -> None:
        """SIGTERM, SIGKILL after the grace time, and no successor."""
        self._stopping.set()
        process = self._process
        if process and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GRACE_S)
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if self._task:
            await self._task

    def said(self) -> list[str]:
        """The last lines of its log that say something."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-20:]
        except OSError:
            return []
        return [line.strip() for line in lines if line.strip() and not line.startswith(_NOISE)]
