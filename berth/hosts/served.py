"""Waits until the head's engine serves. A host that does not answer for a moment has not failed."""

import time
from collections.abc import Callable

from berth.errors import BerthError, Exit, Problem, failed
from berth.hosts.host import Host
from berth.progress import Progress
from berth.waiting import EngineLog

POLL_S = 1.0
PATIENCE_S = 60.0  # a switch that starts again takes about so long

Look = Callable[[], "tuple[bool, tuple[Host, Problem] | None]"]
"""Whether the head serves, and the first engine that has ended. Raises BerthError when a host does not answer."""


def wait(look: Look, log: EngineLog, progress: Progress, timeout_s: float) -> tuple[Host, Problem] | None:
    """Until the head serves: None; or until an engine has ended: which one, and how.

    Raises BerthError when a host has not answered for PATIENCE_S, and (exit code 4) after `timeout_s`.
    """
    began = heard = time.monotonic()
    while True:
        try:
            serves, ended = look()
            heard = time.monotonic()
            if serves:
                return None
            if ended:
                return ended
        except BerthError:
            if time.monotonic() - heard >= PATIENCE_S:
                raise
        if time.monotonic() - began > timeout_s:
            last = f"the last phase was: {log.phase.name}"
            hint = "give it longer with --timeout SECONDS; what is downloaded and compiled is kept"
            raise failed(f"not ready within {timeout_s:.0f} s; {last}", hint, Exit.NOT_READY)
        progress.show(log.phase)
        time.sleep(POLL_S)
