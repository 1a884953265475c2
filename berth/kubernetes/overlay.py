"""A deployment as a kustomization on top of its device's overlay: what `kubectl apply -k` takes, without a secret."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from berth import handed
from berth.deployment import Deployment, device_file
from berth.envfiles import read
from berth.errors import failed
from berth.kubernetes import kustomize, sizes
from berth.kubernetes.sizes import Sizes
from berth.paths import ROOT, RUN, shown
from berth.runtimes import ENGINE, SERVICE, Request
from berth.spread import NODES, gpus_per_node, number
from engine import hub

Json = dict[str, Any]
FOLDER = RUN / "kubernetes"
DEVICE, MODEL, FILES = "berth/device", "berth/model", "berth/env-files"  # annotations of the service
SHARED = "ReadWriteMany"  # a volume that several nodes use
GROUP_API = "leaderworkerset.x-k8s.io"
_GROUP = "engine-group"  # of components/multi-node
_PLAIN_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_UNITS = {"Gi": 1, "Ti": 1024}  # an API server writes 1024Gi as 1Ti
_POD = "/spec/template/spec"
_ENGINE = f"{_POD}/containers/0"
# What Python writes as it is and YAML does not take.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Wanted:
    """A deployment, how often, over how many nodes; and the volumes that are there.

    Those never shrink (GiB), and how many nodes may use one is fixed when it is made (`modes`).
    """

    deployment: Deployment
    replicas: int = 1
    nodes: int = 1
    volumes: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, deployment: Deployment, request: Request) -> "Wanted":
        """With what the command line asks for. Raises BerthError (exit code 2) for a number that is none."""
        nodes = request.nodes or number(deployment, NODES) or 1
        return cls(deployment, request.replicas or 1, nodes)

    def beside(self, claims: list[Json]) -> "Wanted":
        """The same with the volumes that are there.

        Raises BerthError for one that a single node may use, where several engines or nodes need it.
        """
        specs = {claim["metadata"]["name"]: claim["spec"] for claim in claims}
        modes = {name: spec["accessModes"] for name, spec in specs.items()}
        narrow = [name for name in ("models", "compiled") if SHARED not in modes.get(name, [SHARED])]
        if narrow and (self.replicas > 1 or self.nodes > 1):
            raise failed(
                f"the volume {narrow[0]} is there, and {modes[narrow[0]][0]}; several engines or nodes need {SHARED}",
                "scripts/berth down --all --runtime kubernetes deletes the volumes, and up makes them anew",
            )
        return replace(self, volumes={name: _gib(spec) for name, spec in specs.items()}, modes=modes)

    @property
    def is_fetched(self) -> bool:
        """Whether the model comes from the hub before vLLM starts."""
        deployment = self.deployment
        return sizes.is_on_the_hub(deployment.model) and not hub.is_offline(deployment.environ)


def write(wanted: Wanted, folder: Path | None = None) -> Path:
    """Write the kustomization and return its folder. Raises BerthError for settings that fit no pod."""
    folder = folder or FOLDER
    inner = folder / "node" if wanted.nodes > 1 else folder
    _put(inner, _of_a_node(wanted, inner))
    if inner != folder:
        _put(folder, _of_a_group(wanted, folder))
    return folder


def settings(deployment: Deployment) -> dict[str, str]:
    """What is set above the device's own env file; empty where a later file unsets what that one sets."""
    own = {name: each.value for name, each in read(device_file(deployment.device, deployment.root)).items()}
    told = handed.to_a_pod(deployment)
    unset = {name: "" for name in own if own[name] and not deployment.value(name)}
    return {**{name: value for name, value in told.items() if own.get(name) != value}, **unset}


def _of_a_node(wanted: Wanted, folder: Path) -> Json:
    deployment, size = wanted.deployment, sizes.of(wanted.deployment)
    documents = kustomize.documents(deployment.device)
    parts = {"registry": bool(deployment.value("BERTH_REGISTRY")), "fetch": wanted.is_fetched}
    facts = {
        DEVICE: deployment.device,
        MODEL: deployment.model,
        FILES: ", ".join(shown(file) for file in deployment.files),
    }
    engine = kustomize.named(documents, "Deployment", ENGINE)
    return {
        **_HEAD,
        "resources": [_from(folder, f"overlays/{deployment.device}")],
        "components": [_from(folder, f"components/{name}") for name, there in parts.items() if there],
        "images": _images(deployment),
        "patches": [
            _merge("ConfigMap", "settings", {"data": settings(deployment)}),
            _merge("Service", SERVICE, {"metadata": {"annotations": facts}}),
            _change("Deployment", ENGINE, _of_engine(wanted, size, engine)),
            *_of_service(deployment),
            *_volumes(wanted, size, documents),
        ],
    }


def _of_a_group(wanted: Wanted, folder: Path) -> Json:
    """Several nodes: the node's engine becomes a group of them."""
    size = [_replace("/spec/leaderWorkerTemplate/size", wanted.nodes), _replace("/spec/replicas", wanted.replicas)]
    return {
        **_HEAD,
        "resources": ["node"],
        "components": [_from(folder, "components/multi-node")],
        "patches": [_change("LeaderWorkerSet", _GROUP, size)],
    }


def _of_engine(wanted: Wanted, size: Sizes, engine: Json) -> list[Json]:
    deployment, container = wanted.deployment, engine["spec"]["template"]["spec"]["containers"][0]
    probe, limits = container["startupProbe"], container["resources"]["limits"]
    start_s = size.start_s(probe["failureThreshold"] * probe["periodSeconds"])
    found = [
        _replace("/spec/replicas", wanted.replicas),
        _replace(f"{_POD}/terminationGracePeriodSeconds", sizes.engine_grace_s(deployment)),
        _replace(f"{_ENGINE}/startupProbe/failureThreshold", -(-start_s // probe["periodSeconds"])),
    ]
    if wanted.is_fetched and (revision := deployment.value("VLLM_REVISION")):
        words = ("--revision", revision)
        found += [{"op": "add", "path": f"{_POD}/initContainers/0/command/-", "value": word} for word in words]
    cards = [name for name in limits if name not in _PLAIN_RESOURCES and not name.startswith("hugepages-")]
    count = str(gpus_per_node(deployment, wanted.nodes))
    found += [_replace(f"{_ENGINE}/resources/limits/{name.replace('/', '~1')}", count) for name in cards]
    # Without cards the weights lie in the pod's memory.
    ends = ("requests", "limits") if size.weights and not cards else ()
    return [*found, *(_replace(f"{_ENGINE}/resources/{end}/memory", f"{size.memory_gib}Gi") for end in ends)]


def _of_service(deployment: Deployment) -> list[Json]:
    grace = _replace(f"{_POD}/terminationGracePeriodSeconds", sizes.service_grace_s(deployment))
    found = [_change("Deployment", SERVICE, [grace])]
    if not deployment.value("LLM_API_KEYS_FILE"):  # LLM_ALLOW_NO_KEY: the lock stands in front of it
        env = [{"name": "LLM_API_KEYS_FILE", "value": ""}]
        pod = {"spec": {"containers": [{"name": SERVICE, "env": env}]}}
        found.append(_merge("Deployment", SERVICE, {"apiVersion": "apps/v1", "spec": {"template": pod}}))
    return found


def _volumes(wanted: Wanted, size: Sizes, documents: list[Json]) -> list[Json]:
    """The volume of the models, large enough for this one; of those that are there, none smaller than it is."""
    found = []
    for name, least in (("models", size.volume_gib), ("compiled", 0)):
        claim = kustomize.named(documents, "PersistentVolumeClaim", name)
        own = int(str(claim["spec"]["resources"]["requests"]["storage"]).removesuffix("Gi"))
        gib = max(own, least, wanted.volumes.get(name, 0))
        changes = [_replace("/spec/resources/requests/storage", f"{gib}Gi")]
        if modes := wanted.modes.get(name) or ([SHARED] if wanted.replicas > 1 else []):
            changes.append(_replace("/spec/accessModes", modes))
        found.append(_change("PersistentVolumeClaim", name, changes))
    return found


def _images(deployment: Deployment) -> list[dict[str, str]]:
    registry, version = deployment.value("BERTH_REGISTRY", "berth"), deployment.value("BERTH_VERSION")
    tag = {"newTag": version} if version else {}
    names = (f"vllm-{deployment.device}", SERVICE)
    return [{"name": f"berth/{name}", "newName": f"{registry}/{name}", **tag} for name in names]


def _gib(claim: Json) -> int:
    """GiB that a claim asks for; 0 where it says so in another unit."""
    asked = str(claim["resources"]["requests"]["storage"])
    return int(asked[:-2]) * _UNITS[asked[-2:]] if asked[-2:] in _UNITS and asked[:-2].isdigit() else 0


_HEAD = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}


def _from(folder: Path, part: str) -> str:
    """A part of kubernetes/ as a kustomization in `folder` names it: absolute paths are refused."""
    return os.path.relpath(ROOT / "kubernetes" / part, folder)


def _merge(kind: str, name: str, content: Json) -> Json:
    whole = {"apiVersion": "v1", "kind": kind, **content, "metadata": {"name": name, **content.get("metadata", {})}}
    return {"target": {"kind": kind, "name": name}, "patch": _yaml(whole)}


def _change(kind: str, name: str, operations: list[Json]) -> Json:
    return {"target": {"kind": kind, "name": name}, "patch": _yaml(operations)}


def _replace(path: str, value: object) -> Json:
    return {"op": "replace", "path": path, "value": value}


def _put(folder: Path, content: Json) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kustomization.yaml").write_text(_yaml(content), encoding="utf-8")


def _yaml(data: object) -> str:
    """JSON that YAML reads alike: no pairs of surrogates, no control characters."""
    text = json.dumps(data, ensure_ascii=False, indent=2)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
