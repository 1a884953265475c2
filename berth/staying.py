"""`berth up` without -d on this machine: both logs on the terminal until the deployment is stopped."""

import sys
import threading
import time
from collections.abc import Callable

from berth.errors import BerthError, Exit, Problem
from berth.progress import Progress
from berth.runtimes import Runtime

FOLLOW_POLL_S = 0.5


def stay(runtime: Runtime, progress: Progress, tell: Callable[[], None], show_logs: bool) -> None:
    """Tell that it is ready, then print both logs until the deployment is stopped; Ctrl-C stops it.

    Raises BerthError if it failed by itself.
    """
    try:
        tell()  # in here, since who reads it may press Ctrl-C at once
        if show_logs:
            threading.Thread(target=_print_logs, args=(runtime,), daemon=True).start()
        while not (status := runtime.status()).stopped:
            time.sleep(FOLLOW_POLL_S)
    except KeyboardInterrupt:
        progress.say("stopping: answers that are being written are finished first (Ctrl-C again to cut them off)")
        runtime.stop(progress)
        progress.say("stopped")
        return
    if status.state == "failed":
        raise BerthError(Problem("the deployment has failed", "scripts/berth logs engine", Exit.FAILED))
    progress.say("stopped")


def _print_logs(runtime: Runtime) -> None:
    for line in runtime.logs(None, follow=True, tail=0):
        print(line, file=sys.stdout, flush=True)
