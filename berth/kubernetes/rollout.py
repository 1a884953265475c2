"""Which pods are those of the settings that were applied last: a former one may be ready still, or have failed."""

from collections.abc import Iterable
from typing import Any

from berth.kubernetes.pods import Pod, of

KINDS = "pods,deployments.apps,replicasets.apps"
_REVISION, _HASH = "deployment.kubernetes.io/revision", "pod-template-hash"


def pods(items: Iterable[dict[str, Any]]) -> list[Pod]:
    """The pods among objects of KINDS, without those of a Deployment's former template.

    Until its controller has seen what was applied, a Deployment has none.
    """
    items = list(items)
    revisions = {_name(each): _revision(each) for each in items if each["kind"] == "Deployment" and _is_seen(each)}
    newest = {
        each["metadata"]["labels"].get(_HASH)
        for each in items
        if each["kind"] == "ReplicaSet"
        for owner in each["metadata"].get("ownerReferences", [])
        if revisions.get(owner["name"]) == _revision(each)
    }
    return of(each for each in items if each["kind"] == "Pod" and _hash(each) in (None, *newest))


def _is_seen(deployment: dict[str, Any]) -> bool:
    seen = deployment.get("status", {}).get("observedGeneration", 0)
    return bool(seen >= deployment["metadata"].get("generation", 0))


def _name(item: dict[str, Any]) -> str:
    return str(item["metadata"]["name"])


def _hash(pod: dict[str, Any]) -> str | None:
    """None of a pod that no Deployment made."""
    found: str | None = pod["metadata"].get("labels", {}).get(_HASH)
    return found


def _revision(item: dict[str, Any]) -> str:
    return str(item["metadata"].get("annotations", {}).get(_REVISION, ""))
