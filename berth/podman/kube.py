"""The Kubernetes manifests of a deployment, such that `podman kube play` takes them."""

import json
import os

import yaml

from berth.deployment import Deployment
from berth.kubernetes import overlay
from berth.kubernetes.kustomize import built
from berth.paths import ROOT, RUN
from berth.runtimes import NOTHING, SERVICE

FILE = "berth.yaml"
FOLDER = RUN / "podman"
_KEYS = "/run/keys/llm_api_keys"


def files(deployment: Deployment) -> dict[str, str]:
    """One file with all of it. Raises BerthError; no secret is in it."""
    inner = overlay.write(overlay.Wanted.of(deployment, NOTHING), FOLDER / "manifests")
    outer = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [inner.name],
        "components": [os.path.relpath(ROOT / "kubernetes" / "components" / "podman", FOLDER)],
        "patches": [{"patch": json.dumps(_door(deployment))}],
    }
    (FOLDER / "kustomization.yaml").write_text(json.dumps(outer, indent=2) + "\n", encoding="utf-8")
    return {FILE: yaml.safe_dump_all(built(FOLDER), sort_keys=False)}


def _door(deployment: Deployment) -> dict[str, object]:
    """Where the service is reached, as the env files say; beyond loopback it must have keys."""
    address = deployment.address
    env = [{"name": "BIND_ADDR", "value": address}]
    if deployment.value("LLM_API_KEYS_FILE"):
        env.append({"name": "LLM_API_KEYS_FILE", "value": _KEYS})
    ports = [{"containerPort": 9000, "hostPort": deployment.service_port, "hostIP": address}]
    pod = {"spec": {"containers": [{"name": SERVICE, "env": env, "ports": ports}]}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": SERVICE}, "spec": {"template": pod}}
