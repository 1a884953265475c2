"""`berth up` without -d on this machine: both logs on the terminal until the deployment is stopped."""

import sys
import threading
import time

from berth.errors import BerthError, Exit, Problem
from berth.progress import Progress
from berth.runtimes import Runtime

FOLLOW_POLL_S = 0.5


def stay(runtime: Runtime, progress: Progress, show_logs: bool) -> None:
    """Print both logs until the deployment is stopped; Ctrl-C stops it. Raises BerthError if it failed by itself."""
    if show_logs:
        threading.Thread(target=_print_logs, args=(runtime,), daemon=True).start()
    try:
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
