"""Kubernetes: manifests of kubernetes/ for the cluster and the namespace that kubectl is set to."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from berth import preflight
from berth.deployment import Deployment
from berth.errors import BerthError, Exit, Problem
from berth.kubernetes import forward, kubectl, logs, overlay, pods, secrets, waiting
from berth.kubernetes.forward import Forward
from berth.kubernetes.overlay import Wanted
from berth.paths import from_root, in_root
from berth.progress import Progress
from berth.runtimes import ENGINE, NOTHING, SERVICE, Endpoint, Part, Ready, Request, Status, local_url
from engine.phases import STARTING, Phase

APPLY = ("apply", "--server-side", "--force-conflicts", "--field-manager=berth")
_WORKLOADS = "deployments.apps"
_GROUP = f"leaderworkersets.{overlay.GROUP_API}"
_GROUPS = {overlay.GROUP_API: "leaderworkersets", "keda.sh": "scaledobjects"}
_HELD = f"{_WORKLOADS},persistentvolumeclaims"  # they stay until their pods have ended
_REST = "services,configmaps,networkpolicies,poddisruptionbudgets"
# Running answers are finished, and what held the volumes is gone.
_ENDING_S = 600

_PLAIN = Problem(
    "LLM_TLS_CERT_FILE: in a cluster HTTPS is the matter of its gateway or ingress, which has the certificate",
    "leave LLM_TLS_CERT_FILE and LLM_TLS_KEY_FILE unset (docs/kubernetes.md)",
)

_ENDING = Problem(
    "the deployment of before is still being taken down",
    f"wait until this shows nothing: kubectl get {_HELD} -l {pods.PART_OF}",
    Exit.FAILED,
)

_NO_GROUPS = Problem(
    "the cluster knows no LeaderWorkerSet, which an engine over several nodes is",
    "install its operator (https://lws.sigs.k8s.io), or take one node",
    Exit.MISSING_PREREQUISITE,
)


class Runtime:
    """The one deployment of a namespace."""

    name = "kubernetes"
    local = False

    def __init__(self, request: Request = NOTHING) -> None:
        request.only_here(self.name, "nodes", "replicas")
        self._request = request
        self._door: Forward | None = None

    def unavailable(self) -> Problem | None:
        """kubectl must be here; whether a cluster answers is asked before something is started there."""
        return kubectl.problem()

    def problems(self, deployment: Deployment) -> list[Problem]:
        """No cluster, a deployment that is ending, no keys for the clients, or a model that no pod can see."""
        if unreachable := kubectl.unreachable():
            return [unreachable]
        if any("deletionTimestamp" in each["metadata"] for each in kubectl.objects(_HELD, pods.PART_OF)):
            return [_ENDING]  # what is applied beside it would be deleted with it
        secrets.of(deployment)
        model = deployment.model
        found = [*secrets.misplaced(deployment), *([_PLAIN] if deployment.certificate else [])]
        found += preflight.service_problems(deployment, "0.0.0.0")
        if Wanted.of(deployment, self._request).nodes > 1 and not kubectl.served(overlay.GROUP_API):
            found.append(_NO_GROUPS)
        if Path(model).is_dir() and not model.startswith("/cache/"):
            sentence = f"{model} is a folder of this machine, which no pod can see"
            found.append(Problem(sentence, "name a model on the hub or in an object store, or a folder of the volume"))
        return found

    def commands(self, deployment: Deployment) -> list[str]:
        """kubectl's own: the Secrets by standard input, then the kustomization, which is written for that."""
        folder = overlay.write(Wanted.of(deployment, self._request))
        told = [f"{name} ({', '.join(content)})" for name, content in secrets.of(deployment).items()]
        lines = [f"{_shown(*APPLY, '--filename=-')}  # the Secrets {', '.join(told)}"] if told else []
        return [*lines, in_root(_shown(*APPLY, f"--kustomize={from_root(folder)}"))]

    def render(self, deployment: Deployment) -> str:
        """The manifests; Secrets are named, and not shown."""
        folder = overlay.write(Wanted.of(deployment, self._request))
        notes = [
            f"# Secret {name}, not shown: {', '.join(content)}\n" for name, content in secrets.of(deployment).items()
        ]
        return ("".join(notes) + kubectl.run(["kustomize", str(folder)])).rstrip()

    def start(self, deployment: Deployment, progress: Progress, attached: bool) -> None:
        """Apply: what is there already is changed where it differs. Raises BerthError."""
        progress.show(Phase(STARTING, None, "applying the manifests"))
        claims = kubectl.objects("persistentvolumeclaims", pods.PART_OF)
        folder = overlay.write(Wanted.of(deployment, self._request).beside(claims))
        if found := secrets.of(deployment):
            kubectl.run([*APPLY, "--filename=-"], secrets.manifest(found))
        for words in self._of_other_shape(deployment):
            kubectl.run(words, timeout_s=0)
        kubectl.run([*APPLY, f"--kustomize={folder}"])

    def _of_other_shape(self, deployment: Deployment) -> list[list[str]]:
        """What deletes the engine of another number of nodes: on one it is a Deployment, on several a group."""
        kind = _WORKLOADS if Wanted.of(deployment, self._request).nodes > 1 else _GROUP
        if kind == _GROUP and not kubectl.served(overlay.GROUP_API):
            return []
        names = [each["metadata"]["name"] for each in kubectl.objects(kind, pods.PART_OF)]
        engines = [name for name in names if name != SERVICE]
        ending = ("--cascade=foreground", f"--timeout={_ENDING_S}s")
        return [["delete", kind, *engines, "--ignore-not-found", *ending]] if engines else []

    def wait(self, deployment: Deployment, progress: Progress, timeout_s: float, attached: bool) -> Ready:
        """Until the engine serves its model; then, where somebody stays, through a port of this machine."""
        try:
            waiting.until_ready(self, deployment, progress, timeout_s)
        except KeyboardInterrupt:
            progress.say("it goes on; how it is: scripts/berth status --runtime kubernetes; end it: … down …")
            raise
        port = deployment.service_port
        words = shlex.join(forward.command(port))
        facts = {"stop": "scripts/berth down --runtime kubernetes", "forward": words}
        if attached:
            self._door = Forward(port)
        else:
            progress.say(f"the way to it, from here: {words}")
        endpoint = Endpoint(local_url("127.0.0.1", port), "")
        return Ready(endpoint, facts=facts, locked=bool(deployment.value("LLM_API_KEYS_FILE")))

    def stay(self, progress: Progress, tell: Callable[[], None], show_logs: bool) -> None:
        """Keep the port open until Ctrl-C, which leaves the deployment as it is."""
        assert self._door
        try:
            tell()
            self._door.stay(self._is_gone)
        except KeyboardInterrupt:
            progress.say("the port is closed; the deployment goes on until: scripts/berth down --runtime kubernetes")
        finally:
            self._door.close()

    def _is_gone(self) -> bool:
        """Whether somebody took it down. A cluster that does not answer for a while has lost nothing."""
        try:
            return self.status().stopped
        except BerthError:
            return False

    def failure(self) -> Problem | None:
        """`wait` finds out by itself."""
        return None

    def downloaded(self, deployment: Deployment) -> int | None:
        """The pod that fetches tells its own progress."""
        return None

    def has_model(self, deployment: Deployment) -> bool:
        """Whether the volume holds it cannot be told from here."""
        return False

    def free_bytes(self, deployment: Deployment) -> int | None:
        """The volume is made as large as the model needs."""
        return None

    def logs(self, part: str | None, follow: bool, tail: int | None) -> Iterator[str]:
        """The pods' logs; with both parts, each line begins with its part's name. Raises BerthError at their end."""
        return logs.read(part, follow, tail)

    def stop_commands(self) -> list[str]:
        """What deletes the workloads, then the rest; with --all the volumes, too."""
        return [] if self.status().state == "stopped" else [_shown(*words) for words in self._deletions()]

    def stop(self, progress: Progress) -> bool:
        """Delete what `up` made, the pods first, which finish their answers. The volumes stay unless --all is said."""
        if problem := kubectl.unreachable():
            raise BerthError(problem)
        if self.status().state == "stopped" and not self._request.everything:
            return False
        progress.show(Phase("stopping", None, "answers that are being written are finished first"))
        for words in self._deletions():
            kubectl.run(words, timeout_s=0)
        return True

    def _deletions(self) -> list[list[str]]:
        extra = [f"{kind}.{group}" for group, kind in _GROUPS.items() if kubectl.served(group)]
        of = f"--selector={pods.PART_OF}"
        found = [
            ["delete", ",".join([*reversed(extra), _WORKLOADS]), of, "--cascade=foreground", f"--timeout={_ENDING_S}s"]
        ]
        found.append(["delete", _REST, of])
        found.append(["delete", "secrets", f"{of},app.kubernetes.io/managed-by={secrets.MANAGER}"])
        return [*found, *([["delete", "persistentvolumeclaims", of]] if self._request.everything else [])]

    def status(self, deployment: Deployment | None = None) -> Status:
        """What runs in the namespace. The same model on the same device counts as stopped: `up` applies it again."""
        found = kubectl.objects("services,pods", pods.PART_OF)
        door = next((each for each in found if each["kind"] == "Service" and each["metadata"]["name"] == SERVICE), None)
        running = pods.of(each for each in found if each["kind"] == "Pod")
        if door is None:
            return Status(self.name, "stopping" if running else "stopped")
        says = door["metadata"].get("annotations", {})
        device, model = says.get(overlay.DEVICE, ""), says.get(overlay.MODEL, "")
        if deployment and (device, model) == (deployment.device, deployment.model):
            return Status(self.name, "stopped")
        return Status(
            self.name,
            _overall(running),
            device,
            model,
            tuple(file for file in says.get(overlay.FILES, "").split(", ") if file),
            None,
            tuple(Part(pod.name, pod.state(), _why(pod)) for pod in running),
            {"reach it": shlex.join(forward.command(forward.PORT))},
            ready=all(any(pod.is_ready for pod in running if pod.part == part) for part in (ENGINE, SERVICE)),
        )


def _overall(running: list[pods.Pod]) -> str:
    if not running:
        return "degraded"
    if all(pod.is_ready for pod in running):
        return "running"
    return "degraded" if any(pod.problem() for pod in running) else "starting"


def _why(pod: pods.Pod) -> str:
    """What stands behind a pod's state."""
    if problem := pod.problem():
        return problem.sentence
    before = None if pod.ends else pod.phase()
    return f"{before.name}{f': {before.detail}' if before.detail else ''}" if before else ""


def _shown(*words: str) -> str:
    return shlex.join(kubectl.words(*words))
