"""KServe: a ServingRuntime of the device and an InferenceService of the model, made of the device's Kubernetes overlay.

The engine is the container that KServe calls the model server, and listens on the pod's loopback alone. The service
stands beside it as the collocated transformer, to which KServe sends what clients ask; it wants their keys.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from berth import handed
from berth.deployment import Deployment
from berth.errors import BerthError, Exit, Problem
from berth.kserve import naming, overlay
from berth.kserve.manifests import dump
from berth.runtimes import ENGINE, SERVICE
from berth.slurm.submit import gpus_per_node
from engine import names

FORMAT = "berth"
_PHASES = "/run/berth"
_CACHES = ("models", "compiled")
_RUNTIME_API, _SERVICE_API = "serving.kserve.io/v1alpha1", "serving.kserve.io/v1beta1"
# Of a pod, what a ServingRuntime can hold; the rest stands in the InferenceService.
_OF_RUNTIME = ("nodeSelector", "affinity", "tolerations")
_OF_PREDICTOR = (
    *("enableServiceLinks", "automountServiceAccountToken", "securityContext", "terminationGracePeriodSeconds"),
    "runtimeClassName",
)


def render(deployment: Deployment) -> str:
    """The manifests, with the secrets that they read. Raises BerthError for what cannot be."""
    label = naming.label(deployment.model)
    notes = [
        "KServe 0.16 or newer. Before the first start, in the same namespace:",
        "  scripts/berth key add NAME   # writes the keys file that LLM_API_KEYS_FILE names",
        "  kubectl create secret generic berth-clients --from-file=llm_api_keys=THAT_FILE",
        "  kubectl create secret generic berth-engine --from-file=hf_token=FILE   # for gated models",
        f"Then: kubectl apply -f FILE && kubectl wait --for=condition=Ready --timeout=60m inferenceservice/{label}",
    ]
    return dump(*documents(deployment), notes=notes)


def documents(deployment: Deployment) -> list[dict[str, Any]]:
    """Settings, caches, runtime and service. Raises BerthError."""
    _must_fit(deployment)
    found = overlay.documents(deployment.device)
    label = naming.label(deployment.model)
    pods = {part: overlay.named(found, "Deployment", part)["spec"]["template"]["spec"] for part in (ENGINE, SERVICE)}
    data = handed.to_a_pod(deployment)
    # As kustomize does: other settings have another name, so that a change of them reaches the pods.
    settings = {"name": f"{label}-settings-{hashlib.sha256(json.dumps(data).encode()).hexdigest()[:8]}"}
    claims = [overlay.named(found, "PersistentVolumeClaim", name) for name in _CACHES]
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": settings, "data": data},
        *[{**claim, "metadata": {"name": f"{label}-{claim['metadata']['name']}"}} for claim in claims],
        _runtime(deployment, pods),
        _service(deployment, label, pods, settings),
    ]


def _must_fit(deployment: Deployment) -> None:
    """Raise BerthError (exit code 2) for what lies on this machine and so cannot be in a pod."""
    problems = []
    if deployment.certificate:
        said = f"{deployment.where('LLM_TLS_CERT_FILE')}LLM_TLS_CERT_FILE: under KServe its ingress speaks HTTPS"
        problems.append(Problem(said, "leave LLM_TLS_CERT_FILE and LLM_TLS_KEY_FILE out", Exit.BAD_SETTING))
    if deployment.model != names.DEMO and Path(deployment.model).exists():
        said = f"{deployment.where(names.MODEL)}{names.MODEL}={deployment.model} lies on this machine"
        problems.append(Problem(said, "name the model on the hub, or put it into a store: s3://…", Exit.BAD_SETTING))
    if problems:
        raise BerthError(problems)


def _runtime(deployment: Deployment, pods: dict[str, Any]) -> dict[str, Any]:
    volumes = {volume["name"]: volume for part in (SERVICE, ENGINE) for volume in _volumes(part, pods[part])}
    containers = [
        _container(deployment, pods[ENGINE], ENGINE, "kserve-container"),
        _container(deployment, pods[SERVICE], SERVICE, "transformer-container"),
    ]
    return {
        "apiVersion": _RUNTIME_API,
        "kind": "ServingRuntime",
        "metadata": {"name": _name(deployment)},
        "spec": {
            "supportedModelFormats": [{"name": FORMAT, "version": "1"}],
            "protocolVersions": ["v1"],
            "containers": containers,
            "volumes": [*volumes.values(), {"name": "phases", "emptyDir": {"sizeLimit": "1Mi"}}],
            **{field: pods[ENGINE][field] for field in _OF_RUNTIME if field in pods[ENGINE]},
        },
    }


def _name(deployment: Deployment) -> str:
    return f"berth-{deployment.device}"


# Where the two find each other and their files; the rest of `env` is the overlay's.
_PLACES = {
    ENGINE: {names.HOST: "127.0.0.1", names.PHASE_FILE: f"{_PHASES}/phase.json"},
    SERVICE: {"LLM_VLLM_ENDPOINT": f"http://127.0.0.1:{names.DEFAULT_PORT}", names.PHASE_FILE: f"{_PHASES}/phase.json"},
}


def _container(deployment: Deployment, pod: dict[str, Any], part: str, name: str) -> dict[str, Any]:
    """A container of the overlay under KServe's name for it. The settings come from the InferenceService."""
    container = dict(pod["containers"][0])
    container.pop("envFrom", None)
    container.update(name=name, image=naming.image(container["image"], deployment))
    environ = {each["name"]: each for each in container.get("env", [])}
    environ |= {key: {"name": key, "value": value} for key, value in _PLACES[part].items()}
    container["env"] = list(environ.values())
    mounts = [{**mount, "name": _volume(part, mount["name"])} for mount in container["volumeMounts"]]
    phases = {"name": "phases", "mountPath": _PHASES, **({} if part == ENGINE else {"readOnly": True})}
    container["volumeMounts"] = [*mounts, phases]
    if part == ENGINE:
        container.pop("ports", None)  # on loopback: what KServe sends requests to has a port
        container.pop("resources", None)  # the model's
    return container


def _with_cards(deployment: Deployment, resources: dict[str, Any]) -> dict[str, Any]:
    """The overlay's resources with as many cards as the settings spread the model over."""
    cards = str(gpus_per_node(deployment, 1) or 1)
    limits = {name: cards if "/" in name else value for name, value in resources.get("limits", {}).items()}
    return {**resources, "limits": limits} if limits else resources


def _volume(part: str, name: str) -> str:
    """The volume's name in the pod that both share."""
    return name if part == ENGINE else f"{SERVICE}-{name}"


def _volumes(part: str, pod: dict[str, Any]) -> list[dict[str, Any]]:
    """A pod's volumes but the caches, which are the model's."""
    return [{**each, "name": _volume(part, each["name"])} for each in pod["volumes"] if each["name"] not in _CACHES]


def _service(deployment: Deployment, label: str, pods: dict[str, Any], settings: dict[str, str]) -> dict[str, Any]:
    """The InferenceService: which model, with which settings, and where it keeps what it downloads."""
    told = {"envFrom": [{"configMapRef": settings}]}
    return {
        "apiVersion": _SERVICE_API,
        "kind": "InferenceService",
        # A model that loads for minutes is not scaled to nothing: a plain Deployment and Service, no Knative.
        "metadata": {"name": label, "annotations": {"serving.kserve.io/deploymentMode": "Standard"}},
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "maxReplicas": 1,
                "deploymentStrategy": {"type": "Recreate"},  # the old pod's cards and volumes are the new one's
                "model": {
                    "modelFormat": {"name": FORMAT, "version": "1"},
                    "runtime": _name(deployment),
                    **told,
                    "resources": _with_cards(deployment, pods[ENGINE]["containers"][0].get("resources", {})),
                },
                "containers": [{"name": "transformer-container", **told}],
                "volumes": [
                    {"name": name, "persistentVolumeClaim": {"claimName": f"{label}-{name}"}} for name in _CACHES
                ],
                **{field: pods[ENGINE][field] for field in _OF_PREDICTOR if field in pods[ENGINE]},
            }
        },
    }
