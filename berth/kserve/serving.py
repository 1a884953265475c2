"""KServe: a ServingRuntime and an InferenceService, made of what the deployment comes to on plain Kubernetes.

The engine is the container that KServe calls the model server, and listens on the pod's loopback alone. The service
stands beside it as the collocated transformer, to which KServe sends what clients ask; it wants their keys.
"""

import tempfile
from pathlib import Path
from typing import Any

from berth.deployment import Deployment
from berth.errors import BerthError, Exit, Problem
from berth.kserve import naming
from berth.kserve.manifests import dump
from berth.kubernetes import overlay, secrets
from berth.kubernetes.kustomize import built, named
from berth.kubernetes.overlay import Wanted
from berth.paths import RUN
from berth.runtimes import ENGINE, NOTHING, SERVICE
from engine import names
from engine.prepare import YES

FORMAT = {"name": "berth", "version": "1"}
NAMES = {ENGINE: "kserve-container", SERVICE: "transformer-container"}  # KServe looks for these two
_PHASES = "/run/berth"
_KEYS = "/run/keys/llm_api_keys"
# Of a pod, what a ServingRuntime can hold, and what it cannot, so that it stands in the InferenceService.
_OF_RUNTIME = ("nodeSelector", "affinity", "tolerations")
_OF_PREDICTOR = (
    *("initContainers", "enableServiceLinks", "automountServiceAccountToken", "securityContext"),
    *("terminationGracePeriodSeconds", "runtimeClassName"),
)


def render(deployment: Deployment) -> str:
    """The manifests, with how to make the Secrets that they read. Raises BerthError for what cannot be."""
    label = naming.label(deployment.model)
    wanted = {secrets.CLIENTS: {"llm_api_keys": ""}, **secrets.of(deployment)}
    if not _asks_for_keys(deployment):
        wanted.pop(secrets.CLIENTS)
    notes = ["For KServe 0.16 or newer, in the namespace that kubectl is set to. First the Secrets, from files:"]
    for name, content in wanted.items():
        words = " ".join(f"--from-file={key}=FILE" for key in content)
        notes.append(f"  kubectl create secret generic {name} {words}")
    ready = f"kubectl wait --for=condition=Ready --timeout=60m inferenceservice/{label}"
    notes.append(f"Then: kubectl apply -f THIS && {ready}")
    return dump(*documents(deployment), notes=notes)


def documents(deployment: Deployment) -> list[dict[str, Any]]:
    """Settings, volumes, ServingRuntime, InferenceService. Raises BerthError."""
    wanted = Wanted.of(deployment, NOTHING)
    _must_fit(deployment, wanted)
    RUN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RUN, prefix="kserve-") as folder:
        found = built(overlay.write(wanted, Path(folder)))
    label = naming.label(deployment.model)
    pods = {part: named(found, "Deployment", part)["spec"]["template"]["spec"] for part in NAMES}
    plain = [each for each in found if each["kind"] in ("ConfigMap", "PersistentVolumeClaim")]
    for each in plain:
        if each["kind"] == "PersistentVolumeClaim":  # a ConfigMap's name has its content's hash in it
            each["metadata"]["name"] = f"{label}-{each['metadata']['name']}"
    return [*plain, _runtime(deployment, label, pods), _service(label, pods[ENGINE])]


def _must_fit(deployment: Deployment, wanted: Wanted) -> None:
    """Raise BerthError (exit code 2) for what one pod cannot hold."""
    problems = secrets.misplaced(deployment)
    if deployment.certificate:
        said = f"{deployment.where('LLM_TLS_CERT_FILE')}LLM_TLS_CERT_FILE: under KServe its ingress speaks HTTPS"
        problems.append(Problem(said, "leave LLM_TLS_CERT_FILE and LLM_TLS_KEY_FILE out", Exit.BAD_SETTING))
    if deployment.model != names.DEMO and Path(deployment.model).exists():
        said = f"{deployment.where(names.MODEL)}{names.MODEL}={deployment.model} lies on this machine"
        problems.append(Problem(said, "name a model on the hub or in an object store", Exit.BAD_SETTING))
    if wanted.nodes > 1:
        said = f"the model is spread over {wanted.nodes} nodes, and this InferenceService is one pod"
        problems.append(Problem(said, "use --runtime kubernetes, or a smaller model", Exit.BAD_SETTING))
    if problems:
        raise BerthError(problems)


def _runtime(deployment: Deployment, label: str, pods: dict[str, Any]) -> dict[str, Any]:
    volumes = [_volume(each, part, label) for part in NAMES for each in pods[part]["volumes"]]
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": label},
        "spec": {
            "supportedModelFormats": [FORMAT],
            "protocolVersions": ["v1"],
            "containers": [_container(deployment, pods[part]["containers"][0], part) for part in NAMES],
            "volumes": [*volumes, {"name": "phases", "emptyDir": {"sizeLimit": "1Mi"}}],
            **{field: pods[ENGINE][field] for field in _OF_RUNTIME if field in pods[ENGINE]},
        },
    }


def _volume(volume: dict[str, Any], part: str, label: str) -> dict[str, Any]:
    """A volume under its name in the pod that both share."""
    claim = volume.get("persistentVolumeClaim")
    own = {"persistentVolumeClaim": {**claim, "claimName": f"{label}-{claim['claimName']}"}} if claim else {}
    return {**volume, **own, "name": _shared(volume["name"], part)}


def _shared(name: str, part: str) -> str:
    return name if part == ENGINE else f"{part}-{name}"


def _container(deployment: Deployment, container: dict[str, Any], part: str) -> dict[str, Any]:
    """A container under KServe's name for it, told where the two find each other."""
    mounts = [{**mount, "name": _shared(mount["name"], part)} for mount in container["volumeMounts"]]
    phases = {"name": "phases", "mountPath": _PHASES, **({} if part == ENGINE else {"readOnly": True})}
    environ = {each["name"]: each for each in container["env"]}
    environ |= {name: {"name": name, "value": value} for name, value in _places(deployment, part).items()}
    changed = {"env": list(environ.values()), "volumeMounts": [*mounts, phases]}
    rest = {key: value for key, value in container.items() if key != "name"}
    if part == ENGINE:
        rest.pop("ports")  # it is on loopback, and KServe sends requests to a container with a port
    return {"name": NAMES[part], **rest, **changed}


def _places(deployment: Deployment, part: str) -> dict[str, str]:
    phases = {names.PHASE_FILE: f"{_PHASES}/phase.json"}
    if part == ENGINE:
        return {names.HOST: "127.0.0.1", **phases}
    keys = {"LLM_API_KEYS_FILE": _KEYS} if _asks_for_keys(deployment) else {}
    return {"LLM_VLLM_ENDPOINT": f"http://127.0.0.1:{names.DEFAULT_PORT}", **keys, **phases}


def _asks_for_keys(deployment: Deployment) -> bool:
    """Unless a lock is said to stand in front of the service."""
    open_to_all = deployment.value("LLM_ALLOW_NO_KEY").lower() in YES
    return bool(deployment.value("LLM_API_KEYS_FILE")) or not open_to_all


def _service(label: str, engine: dict[str, Any]) -> dict[str, Any]:
    """The InferenceService. A model that loads for minutes is not scaled to nothing: a Deployment, no Knative."""
    own = {field: engine[field] for field in _OF_PREDICTOR if field in engine}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": label, "annotations": {"serving.kserve.io/deploymentMode": "Standard"}},
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "maxReplicas": 1,
                "deploymentStrategy": {"type": "Recreate"},  # the old pod's cards and volumes are the new one's
                "model": {"modelFormat": FORMAT, "runtime": label, "resources": engine["containers"][0]["resources"]},
                **own,
            }
        },
    }
