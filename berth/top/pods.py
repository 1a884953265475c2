"""Kubernetes: each engine's pod is asked from the inside, since nothing but the service may reach its port."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from berth.errors import BerthError
from berth.kubernetes import kubectl, pods
from berth.kubernetes.pods import Pod
from berth.runtimes import ENGINE, Runtime, Status
from berth.top.sample import Sample, load
from engine.prometheus import Load

_ASK = (
    "import sys, urllib.request as u; "
    "sys.stdout.write(u.urlopen('http://127.0.0.1:8008/metrics', timeout=5).read().decode())"
)


class Pods:
    """The engines in kubectl's namespace."""

    name = "kubernetes"

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._loads: dict[str, Load] = {}

    def look(self) -> list[Sample]:
        """A sample for each pod that serves, all asked at once."""
        status = self._runtime.status()
        if status.stopped:
            return []
        found = [pod for pod in pods.of(kubectl.objects("pods", pods.PART_OF), ENGINE) if not pod.follows]
        self._loads = {pod.key: self._loads.get(pod.key, Load()) for pod in found}
        if not found:
            return [Sample(self.name, "", status.model, status.device, status.state)]
        with ThreadPoolExecutor(len(found)) as pool:
            return list(pool.map(lambda pod: self._sample(pod, status), found))

    def _sample(self, pod: Pod, status: Status) -> Sample:
        told: Mapping[str, object] = {}
        if pod.is_ready and (text := _metrics(pod)):
            told = self._loads[pod.key].update(text, time.monotonic())
        phase, problem = None if pod.ends else pod.phase(), pod.problem()
        detail = problem.sentence if problem else phase.detail if phase else ""
        return Sample(
            self.name,
            pod.name,
            status.model,
            status.device,
            pod.state(),
            phase.name if phase else "",
            phase.fraction if phase else None,
            detail,
            **load(told),
        )


def _metrics(pod: Pod) -> str:
    """What the engine tells; nothing where it does not, for a pod may go at any time."""
    try:
        return kubectl.run(["exec", pod.name, "--container", ENGINE, "--", "python", "-P", "-c", _ASK])
    except BerthError:
        return ""
