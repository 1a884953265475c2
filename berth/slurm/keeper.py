"""The process behind `berth connect`: tunnels that follow a deployment's jobs, and the local door in front of them.

Run as `python -m berth.slurm.keeper DIRECTORY`, which holds plan.json and the key. Whoever holds the lock file there is
the keeper. Every child dies with it, and it ends by itself when the deployment has no job any more.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from berth.children import adopt_orphans
from berth.errors import BerthError
from berth.host import processes
from berth.paths import shown
from berth.slurm import door, queue
from berth.slurm.cluster import Cluster
from berth.slurm.kept import Kept
from berth.slurm.line import Line
from berth.slurm.outlet import Outlets
from berth.slurm.site import Site
from berth.slurm.store import EndpointFile, Store
from berth.slurm.tunnel import LOOPBACK

HERE_S, THERE_S = 0.5, 1.0  # between two looks at the endpoint files: on the login node, and through SSH
QUEUE_S = 10.0  # Slurm's controller is asked less often, and only while no job has a door
CLOCK_S = 300.0
UNREACHED_S = 30.0  # a ready door that never answered for so long will not answer at all
DOOR_TRIES = 3


@dataclass
class State:
    """What `berth connect` reads: written whole at every look. `state` is waiting, ready, ended or failed."""

    pid: int = field(default_factory=os.getpid)
    born: int | None = field(default_factory=lambda: processes.born(os.getpid()))
    boot: str = field(default_factory=processes.boot)
    name: str = ""
    port: int = 0
    state: str = "waiting"
    reason: str = ""
    hint: str = ""
    trouble: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)
    outlets: list[dict[str, Any]] = field(default_factory=list)
    children: list[tuple[int, int | None]] = field(default_factory=list)


class Keeper:
    """Keeps one deployment reachable from this machine."""

    def __init__(self, plan: dict[str, Any], directory: Path) -> None:
        self.directory, self.name = directory, str(plan["name"])
        site = Site(**plan["site"])
        self.store = Store(Cluster(site.login), site)
        self.key = (directory / "api_key").read_text().strip()
        self.lines: dict[str, Line] = {}
        self.state = State(name=self.name, port=plan["port"])
        self.stopping, self.news = asyncio.Event(), asyncio.Event()
        self.door = Kept(door.command, directory / "door.log", door.environ(directory, self.state.port), door.place())
        self.outlets = Outlets(directory, self.state.port)
        self._offset, self._clock_at, self._queue_at = 0.0, float("-inf"), float("-inf")
        self._last: EndpointFile | None = None
        self._waits_for = ""
        self._unreached_since: float | None = None
        self._reached_once = False

    async def run(self) -> None:
        """Keep on until a signal, or until there is nothing to be reached any more."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.on_signal)
        self.door.start()
        pause = THERE_S if self.store.cluster.destination else HERE_S
        while not self.stopping.is_set():
            await self.look()
            self.outlets.look()
            self.write()
            if self.state.state in ("ended", "failed"):
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), pause)
            self.news.clear()
        await asyncio.gather(self.outlets.stop(), self.door.stop(), *(line.stop() for line in self.lines.values()))
        for file in (self.directory / "endpoints").glob("*.json"):
            file.unlink(missing_ok=True)
        if self.state.state not in ("ended", "failed"):
            self.state.state = "ended"
        self.state.children = []
        self.write()

    def on_signal(self) -> None:
        """Come to an end at once."""
        self.stopping.set()
        self.news.set()

    async def look(self) -> None:
        """Bring tunnels and local endpoint files in step with the cluster's."""
        try:
            live = await asyncio.to_thread(self.read)
        except BerthError as error:  # the login node is away for a moment: what is open stays open
            self.state.trouble = error.problems[0].sentence
            return
        self.state.trouble = "" if live else self._waits_for
        for endpoint in live:  # successors first: their way is open before the old one goes
            line = self.lines.get(endpoint.run)
            if line and not line.leads_to(endpoint):
                await self.lines.pop(endpoint.run).stop()
                line = None
            if line is None and endpoint.base_url:
                line = self.lines[endpoint.run] = Line(endpoint, self.store, self.directory, self.news.set)
            if line:
                line.look(endpoint, self.key)
                self.tell(line, endpoint)
        for run in [run for run in self.lines if run not in {each.run for each in live}]:
            self.file(run).unlink(missing_ok=True)
            await self.lines.pop(run).stop()
        self.judge(live)

    def read(self) -> list[EndpointFile]:
        """The runs that are at work, by the cluster's clock. Raises BerthError."""
        cluster = self.store.cluster
        if cluster.destination and time.monotonic() - self._clock_at > CLOCK_S:
            self._offset = float(cluster.run(["date", "+%s"]).stdout) - time.time()
            self._clock_at = time.monotonic()
        found = self.store.endpoints(self.name)
        now = time.time() + self._offset
        live = [each for each in found if each.alive(now)]
        self._last = found[-1] if found else self._last
        if not live and time.monotonic() - self._queue_at > QUEUE_S:
            self._queue_at = time.monotonic()
            self._see_whether_any_is_to_come(found)
        return live

    def _see_whether_any_is_to_come(self, found: list[EndpointFile]) -> None:
        deployed = self.store.load(self.name)
        ids = list(deployed.jobs) if deployed else sorted({each.job for each in found if each.job})
        waiting = [job for job in queue.jobs(self.store.cluster, ids) if not job.over]
        if not waiting:
            self.end(f"{self.name} has no job any more{_why(self._last)}")
        else:
            job = waiting[0]
            self._waits_for = f"job {job.id} {job.state.lower()}" + (f" ({job.reason})" if job.reason else "")

    def tell(self, line: Line, endpoint: EndpointFile) -> None:
        """Tell the local door of a run, in this machine's words: its address here, times by the clock here."""
        if not line.reached:
            self.file(endpoint.run).unlink(missing_ok=True)
            return
        here = replace(
            endpoint,
            base_url=line.url,
            host=LOOPBACK if line.tunnel else endpoint.host,
            port=line.port,
            heartbeat=endpoint.heartbeat - self._offset,
            key_file=str(self.directory / "api_key"),
        )
        _replace(self.file(endpoint.run), asdict(here))

    def judge(self, live: list[EndpointFile]) -> None:
        """Whether a request to the local door would be answered; whether it ever will be."""
        ready = [each for each in live if each.state == "ready"]
        reached = [each for each in ready if (line := self.lines.get(each.run)) and line.reached]
        if reached:
            self._reached_once, self._unreached_since = True, None
        elif ready:
            self._unreached_since = self._unreached_since or time.monotonic()
        else:
            self._unreached_since = None
        if self.state.state in ("ended", "failed"):
            return
        self.state.state = "ready" if reached else "waiting"
        waited = time.monotonic() - (self._unreached_since or time.monotonic())
        if self.door.pid is None and self.door.ends >= DOOR_TRIES:
            self.fail(
                f"the local door does not start: {(self.door.said() or ['no message'])[-1]}",
                f"see {shown(self.door.log)}",
            )
        elif ready and not reached and not self._reached_once and waited > UNREACHED_S:
            sentence, hint = self.lines[ready[-1].run].trouble()
            self.fail(f"{self.name} is ready and cannot be reached from here: {sentence}", hint)

    def end(self, reason: str) -> None:
        """There is nothing to keep any more."""
        self.state.state, self.state.reason = "ended", reason
        self.state.hint = "start it again with scripts/berth up; scripts/berth ls says what runs"

    def fail(self, reason: str, hint: str) -> None:
        """It cannot work."""
        self.state.state, self.state.reason, self.state.hint = "failed", reason, hint

    def file(self, run: str) -> Path:
        """The local endpoint file of a run."""
        return self.directory / "endpoints" / f"{run}.json"

    def write(self) -> None:
        """Replace the state file in one step."""
        self.state.runs = [line.facts() for line in self.lines.values()]
        self.state.outlets = self.outlets.facts()
        kept = [self.door, *self.outlets.tunnels(), *(line.tunnel for line in self.lines.values() if line.tunnel)]
        self.state.children = [(child.pid, child.born) for child in kept if child.pid]
        _replace(self.directory / "state.json", asdict(self.state))


def _why(last: EndpointFile | None) -> str:
    if last is None:
        return ""
    return f": job {last.run} {last.state if not last.reason else f'{last.state} ({last.reason})'}"


def _replace(file: Path, data: dict[str, Any]) -> None:
    """Write JSON in one step. A directory that someone deleted is no reason to stop."""
    draft = file.with_suffix(".new")
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps(data, default=str))
        draft.replace(file)


def main() -> int:
    """Take the lock, keep on. Exit code 1 when another keeper holds the lock."""
    os.umask(0o077)
    directory = Path(sys.argv[1])
    lock = open(directory / "lock", "a")  # noqa: SIM115 - held until the process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 1
    adopt_orphans()
    asyncio.run(Keeper(json.loads((directory / "plan.json").read_text()), directory).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
