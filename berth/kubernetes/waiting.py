"""Follows a deployment in a cluster until a chat request would be answered."""

import time
from dataclasses import replace

from berth.deployment import Deployment
from berth.errors import BerthError, Exit, failed
from berth.kubernetes import kubectl, pods, rollout
from berth.kubernetes.pods import Pod
from berth.progress import Progress
from berth.runtimes import ENGINE, SERVICE, Runtime
from berth.waiting import EngineLog
from engine.phases import READY, STARTING, Phase

POLL_S = 1.0
_UP = "kubectl get pods -l " + pods.PART_OF


def until_ready(runtime: Runtime, deployment: Deployment, progress: Progress, timeout_s: float) -> None:
    """Return once an engine and a service are ready that have the settings applied last.

    Raises BerthError for a pod that has failed, in its own words, and with exit code 4 after `timeout_s` seconds.
    """
    watch, began = _Watch(runtime), time.monotonic()
    while True:
        found = rollout.pods(kubectl.objects(rollout.KINDS, pods.PART_OF))
        if all(any(pod.is_ready for pod in found if pod.part == part) for part in (ENGINE, SERVICE)):
            progress.show(Phase(READY))
            return
        if problem := next((problem for pod in found if (problem := pod.problem())), None):
            raise BerthError(replace(problem, hint=f"{problem.hint}; what was started stays: {_UP}"))
        phase = watch.phase(found)
        if time.monotonic() - began > timeout_s:
            raise failed(
                f"not ready within {timeout_s:.0f} s; the last phase was: {phase.name}"
                + (f" ({phase.detail})" if phase.detail else ""),
                "it goes on: the same command waits for it again, --timeout SECONDS for longer",
                Exit.NOT_READY,
            )
        progress.show(phase)
        time.sleep(POLL_S)


class _Watch:
    """The engine's phase: what its pod waits for, and from then on what its log says."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._log: EngineLog | None = None
        self._key = ""

    def phase(self, found: list[Pod]) -> Phase:
        engine = next((pod for pod in found if pod.part == ENGINE and not pod.follows and not pod.ends), None)
        if engine is None:
            return Phase(STARTING)
        if before := engine.phase():
            return before
        if self._log is None or self._key != engine.key:
            self._log, self._key = EngineLog(self._runtime), engine.key
        return self._log.phase
