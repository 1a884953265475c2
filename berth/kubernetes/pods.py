"""What a cluster says of a deployment's pods: how each is, what it waits for, and why it will never be ready."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from berth.errors import Exit, Problem
from berth.host.installing import reason
from engine.phases import DOWNLOADING, PULLING, STARTING, Phase

PART_OF = "app.kubernetes.io/part-of=berth"
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
WAITING_FOR_A_NODE = "waiting for a node"
# What the kubelet says of an image that it will not get by trying again, or has tried to get for a while.
_NO_IMAGE = ("ErrImageNeverPull", "InvalidImageName", "ImagePullBackOff")
_NEVER = "ErrImageNeverPull"
_BAD_CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class Pod:
    """One pod, as `kubectl get pods --output json` tells of it."""

    raw: dict[str, Any]

    @property
    def name(self) -> str:
        """Its own name."""
        return str(self.raw["metadata"]["name"])

    @property
    def part(self) -> str:
        """engine or llm."""
        return str(self.raw["metadata"].get("labels", {}).get(NAME, ""))

    @property
    def follows(self) -> bool:
        """Whether it is a node of a group that serves nothing by itself."""
        return bool(self.raw["metadata"].get("labels", {}).get(COMPONENT) == "follower")

    @property
    def ends(self) -> bool:
        """Whether it was told to stop."""
        return "deletionTimestamp" in self.raw["metadata"]

    @property
    def is_ready(self) -> bool:
        """Whether it gets requests."""
        return not self.ends and self._condition("Ready").get("status") == "True"

    @property
    def began(self) -> bool:
        """Whether its main container has run, so that there is a log."""
        return any({"running", "terminated"} & each.get("state", {}).keys() for each in self._statuses())

    @property
    def key(self) -> str:
        """Changes whenever its container is started anew."""
        return f"{self.name} {sum(each.get('restartCount', 0) for each in self._statuses())}"

    def state(self) -> str:
        """One word."""
        if self.ends:
            return "stopping"
        if self.is_ready:
            return "ready"
        return str(self.raw.get("status", {}).get("phase", "Pending")).lower()

    def phase(self) -> Phase | None:
        """What it waits for before its container runs; None from then on."""
        if self.began:
            return None
        scheduled = self._condition("PodScheduled")
        if scheduled.get("status") == "False":
            return Phase(WAITING_FOR_A_NODE, None, str(scheduled.get("message", ""))[:160])
        if any("running" in each.get("state", {}) for each in self._statuses("initContainerStatuses")):
            return Phase(DOWNLOADING)
        waits = [each["state"]["waiting"] for each in self._all() if "waiting" in each.get("state", {})]
        pulls = any(wait.get("reason") in ("ContainerCreating", "PodInitializing", "ErrImagePull") for wait in waits)
        return Phase(PULLING, None, "or mounting its volumes") if pulls else Phase(STARTING)

    def problem(self) -> Problem | None:
        """Why it will not be ready, or None while it still may, or is: what ended before has been started anew."""
        if self.ends or self.is_ready:
            return None
        found = (self._of_container(each) for each in self._all())
        return next((problem for problem in found if problem), None)

    def _of_container(self, status: dict[str, Any]) -> Problem | None:
        state = status.get("state", {})
        wait = state.get("waiting", {})
        if wait.get("reason") in _NO_IMAGE:
            image = status.get("image", "")
            hint = "BERTH_REGISTRY names a registry to pull from; scripts/berth build makes the images"
            said = f"{image} cannot be pulled: {wait.get('message', '')[:200]}"
            if wait["reason"] == _NEVER:
                said = f"{image} is not on the node, and names no registry to pull it from"
            return Problem(said, hint, Exit.MISSING_PREREQUISITE)
        if wait.get("reason") in _BAD_CONFIG:
            said = f"{self.name}: {wait.get('message', wait['reason'])}"
            return Problem(said, f"kubectl describe pod {self.name}", Exit.FAILED)
        ended = state.get("terminated") or status.get("lastState", {}).get("terminated")
        return _of_end(self.name, status["name"], ended) if ended and ended.get("exitCode") else None

    def _condition(self, kind: str) -> dict[str, Any]:
        conditions = self.raw.get("status", {}).get("conditions") or []
        return next((each for each in conditions if each.get("type") == kind), {})

    def _statuses(self, kind: str = "containerStatuses") -> list[dict[str, Any]]:
        return self.raw.get("status", {}).get(kind) or []

    def _all(self) -> list[dict[str, Any]]:
        return [*self._statuses("initContainerStatuses"), *self._statuses()]


def _of_end(pod: str, container: str, ended: dict[str, Any]) -> Problem:
    """Why a container has ended, in the words with which it did."""
    code = ended["exitCode"]
    sentence, hint = reason(str(ended.get("message", "")))
    if not sentence:
        sentence = f"{container} of {pod} ended with exit code {code}"
        if ended.get("reason") == "OOMKilled":
            sentence = f"{container} of {pod} was killed for lack of memory"
    known = [each for each in (Exit.BAD_SETTING, Exit.MISSING_PREREQUISITE) if each == code]
    return Problem(
        sentence, hint or f"kubectl logs {pod} --container {container} --previous", *(known or [Exit.FAILED])
    )


def of(items: Iterable[dict[str, Any]], part: str | None = None) -> list[Pod]:
    """The pods, of one part where it is named; those that end last."""
    found = [Pod(item) for item in items]
    return sorted((pod for pod in found if part in (None, pod.part)), key=lambda pod: (pod.ends, pod.name))
