"""Keeps the engine and the service alive as plain processes: restarts with back-off, and a clean stop in order.

Run as `python -m berth.supervisor PLAN`, where PLAN is the JSON that `berth.runtimes.native` writes. Whoever holds the
lock file next to it is the supervisor: a lock goes with its process, so nothing stale passes for a running one.
Settings and secrets arrive in the environment, never in the plan. Standard library only.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from berth.children import Child, adopt_orphans
from berth.host import processes

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
FAILED_BEFORE_READY = 1


@dataclass
class State:
    """What `berth status` reads: written whole at every change."""

    pid: int
    boot: str = field(default_factory=processes.boot)
    state: str = "starting"
    reason: str = ""
    exit_code: int = 0
    children: dict[str, Any] = field(default_factory=dict)


class Supervisor:
    """Runs the children of one plan until it is told to stop or one of them cannot even start."""

    def __init__(self, plan: dict[str, Any], directory: Path) -> None:
        self.directory = directory
        self.children = [Child(directory=directory, on_change=self.write, **child) for child in plan["children"]]
        self.state = State(os.getpid())
        self.stopping = asyncio.Event()
        self.impatient = asyncio.Event()

    def write(self) -> None:
        """Replace the state file in one step. A directory that someone deleted is no reason to stop serving."""
        self.state.children = {child.name: child.facts() for child in self.children}
        draft = self.directory / "state.json.new"
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(asdict(self.state), indent=1))
            draft.replace(self.directory / "state.json")

    def on_signal(self) -> None:
        """The first signal asks for a clean stop, the second for a quick one."""
        if self.stopping.is_set():
            self.impatient.set()
        self.stopping.set()

    async def run(self) -> int:
        """Return the exit code: 0 after a stop that was asked for, else that of the child that could not start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.on_signal)
        self.write()
        keepers = [asyncio.create_task(self.keep(child)) for child in self.children]
        await self.stopping.wait()
        self.state.state = "stopping" if not self.state.exit_code else "failed"
        self.write()
        for child in self.children:
            await child.stop(self.impatient)
        await asyncio.gather(*keepers)
        self.state.state = "failed" if self.state.exit_code else "stopped"
        self.write()
        return self.state.exit_code

    async def keep(self, child: Child) -> None:
        """Start a child again whenever it ends, waiting longer each time that it did not get as far as ready."""
        delay = FIRST_DELAY_S
        while not self.stopping.is_set():
            began = time.monotonic()
            code = await child.run()
            if self.stopping.is_set():
                return
            if not child.was_ready:
                self.state.exit_code = code if code in (2, 3) else FAILED_BEFORE_READY
                self.state.reason = f"{child.name} ended with {child.last_exit} before it was ready"
                self.stopping.set()
                return
            delay = FIRST_DELAY_S if child.ready_this_time else min(delay * 2, LONGEST_DELAY_S)
            child.wait_to_restart(delay, time.monotonic() - began)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), delay)


def main() -> int:
    """Take the lock, run the plan. Exit code 1 when another supervisor holds the lock."""
    plan = Path(sys.argv[1])
    lock = open(plan.with_name("lock"), "a")  # noqa: SIM115 - held until the process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("berth: error: another supervisor runs here", file=sys.stderr)
        return 1
    adopt_orphans()
    return asyncio.run(Supervisor(json.loads(plan.read_text()), plan.parent).run())


if __name__ == "__main__":
    sys.exit(main())
