"""`berth warm`: one start of the engine ahead of time, so that what it downloads and compiles is there already."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from berth import children
from berth.batch import local, work
from berth.deployment import Deployment
from berth.errors import Exit, failed
from berth.host.installing import reason
from berth.paths import RUN, shown
from berth.progress import Progress
from berth.runtimes import Runtime

FOLDER = RUN / "warm"
WORDS = ["-m", "engine.warm"]


@dataclass(frozen=True)
class Warmed:
    """How long it took, in seconds, and for what."""

    model: str
    device: str
    runtime: str
    seconds: float

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {"model": self.model, "device": self.device, "runtime": self.runtime, "seconds": round(self.seconds, 1)}


def local_only(runtime: Runtime) -> local.Place:
    """The place to run in. Raises BerthError (exit code 2) for jobs, which keep their cache by themselves."""
    if runtime.local:
        return work.place_of(runtime)
    raise failed(
        f"{runtime.name} jobs are warmed by their first start: the store keeps what it compiles",
        "start one, and end it once it is ready: scripts/berth up --runtime slurm -d, then scripts/berth stop",
        Exit.BAD_SETTING,
    )


def command(deployment: Deployment, runtime: Runtime) -> str:
    """The exact command, secrets masked."""
    return local_only(runtime).program(deployment, FOLDER, WORDS).line(local.secrets_of(deployment))


def warm(deployment: Deployment, runtime: Runtime, progress: Progress) -> Warmed:
    """Start the engine, wait until it answers, end it. Raises BerthError with the engine's reason."""
    place, began = local_only(runtime), time.monotonic()
    with _alone():
        deployment = work.check(deployment, runtime, progress)
        place.prepare(deployment, FOLDER, progress)
        code = local.run(place.program(deployment, FOLDER, WORDS), place, FOLDER, None, progress)
    if code:
        log = FOLDER / local.LOG
        sentence, hint = reason(log.read_text(errors="replace"))
        known = Exit(code) if code in (Exit.BAD_SETTING, Exit.MISSING_PREREQUISITE) else Exit.FAILED
        raise failed(sentence or f"the engine ended with {children.in_words(code)}", hint or f"see {shown(log)}", known)
    return Warmed(deployment.model, deployment.device, runtime.name, time.monotonic() - began)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / "lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise failed("another berth warm is at work here", "wait for it") from None
        yield
