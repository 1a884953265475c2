"""`up` beside what a former `up` left in the cluster: pods, volumes, an engine of another shape."""

from typing import Any

import pytest

from berth.errors import BerthError, Exit
from berth.kubernetes import kubectl, overlay
from berth.progress import Progress
from berth.runtimes import Request
from berth.runtimes.kubernetes import Runtime
from tests.unit.kubernetes.cluster import Cluster, demo, ended, pod, service
from tests.unit.kubernetes.conftest import manifests, named


def volume(name: str, mode: str = "ReadWriteOnce", storage: str = "100Gi") -> dict[str, Any]:
    spec = {"accessModes": [mode], "resources": {"requests": {"storage": storage}}}
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def applied(generation: int, seen: int) -> list[dict[str, Any]]:
    """An engine's Deployment whose controller has got so far, and what it made of the two last settings."""
    owner = {"ownerReferences": [{"name": "engine"}]}
    revisions = [{"annotations": {"deployment.kubernetes.io/revision": str(number)}} for number in (1, 2)]
    hashes = [{"labels": {"pod-template-hash": each}} for each in ("old", "new")]
    return [
        {
            "kind": "Deployment",
            "metadata": {"name": "engine", "generation": generation, **revisions[seen - 1]},
            "status": {"observedGeneration": seen},
        },
        *(
            {"kind": "ReplicaSet", "metadata": {**owner, **revision, **labels}}
            for revision, labels in zip(revisions, hashes, strict=True)
        ),
    ]


def of_template(name: str, made: dict[str, Any]) -> dict[str, Any]:
    made["metadata"]["labels"]["pod-template-hash"] = name
    return made


@pytest.mark.parametrize("former", [{"ready": True}, ended(2)], ids=["ready", "failed"])
def test_a_pod_of_former_settings_is_neither_waited_for_nor_reported(cluster: Cluster, former: dict[str, Any]) -> None:
    old = of_template("old", pod("engine", **former))
    for seen in (1, 2):
        cluster.has(service(), *applied(2, seen), old, pod("llm", ready=True))
        with pytest.raises(BerthError) as late:
            Runtime().wait(demo(), Progress(), 0, False)
        assert late.value.exit_code == Exit.NOT_READY
    new = of_template("new", pod("engine", ready=True))
    cluster.has(service(), *applied(2, 2), old, new, pod("llm", ready=True))
    assert Runtime().wait(demo(), Progress(), 5, False).endpoint


@pytest.mark.parametrize(("there", "asked"), [("400Gi", "400Gi"), ("2Ti", "2048Gi")])
def test_a_volume_never_shrinks(cluster: Cluster, there: str, asked: str) -> None:
    cluster.has(volume("models", storage=there))
    Runtime().start(demo(), Progress(), False)
    claim = named(manifests(kubectl.run(["kustomize", str(overlay.FOLDER)])), "PersistentVolumeClaim", "models")
    assert claim["spec"]["resources"]["requests"]["storage"] == asked


def test_a_volume_stays_shared_where_one_engine_is_left(cluster: Cluster) -> None:
    cluster.has(volume("models", "ReadWriteMany"), volume("compiled", "ReadWriteMany"))
    Runtime().start(demo(), Progress(), False)
    made = manifests(kubectl.run(["kustomize", str(overlay.FOLDER)]))
    for name in ("models", "compiled"):
        assert named(made, "PersistentVolumeClaim", name)["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("more", [Request(replicas=2), Request(nodes=2)], ids=["replicas", "nodes"])
def test_a_volume_of_one_node_is_named_where_several_need_it(cluster: Cluster, more: Request) -> None:
    cluster.has(volume("models"), volume("compiled"))
    with pytest.raises(BerthError, match="the volume models is there, and ReadWriteOnce"):
        Runtime(more).start(demo(VLLM_TP_SIZE="2"), Progress(), False)
    assert [call["words"][0] for call in cluster.calls()] == ["get"], "nothing is changed"


def test_several_nodes_are_refused_where_no_operator_would_start_them(cluster: Cluster) -> None:
    said = demo(LLM_ALLOW_NO_KEY="true", VLLM_TP_SIZE="2")
    assert Runtime(Request(nodes=2)).problems(said) == []
    (cluster.folder / "plain").touch()
    (problem,) = Runtime(Request(nodes=2)).problems(said)
    assert "knows no LeaderWorkerSet" in problem.sentence
    assert Runtime().problems(demo(LLM_ALLOW_NO_KEY="true")) == []


@pytest.mark.parametrize(
    ("nodes", "before", "wrong"),
    [
        (2, "Deployment", ["deployments.apps", "engine"]),
        (1, "LeaderWorkerSet", ["leaderworkersets.leaderworkerset.x-k8s.io", "engine-group"]),
        (1, "Deployment", []),
        (2, "LeaderWorkerSet", []),
    ],
)
def test_an_engine_of_another_number_of_nodes_does_not_stay_beside_the_new_one(
    cluster: Cluster, nodes: int, before: str, wrong: list[str]
) -> None:
    engine = "engine" if before == "Deployment" else "engine-group"
    cluster.has(
        *({"kind": kind, "metadata": {"name": name}} for kind, name in ((before, engine), ("Deployment", "llm")))
    )
    Runtime(Request(nodes=nodes)).start(demo(VLLM_TP_SIZE="2"), Progress(), False)
    assert [call["words"][1:3] for call in cluster.calls() if call["words"][0] == "delete"] == (
        [wrong] if wrong else []
    )


@pytest.mark.parametrize("kind", ["Deployment", "PersistentVolumeClaim"])
def test_nothing_is_put_beside_what_is_still_being_taken_down(cluster: Cluster, kind: str) -> None:
    there: dict[str, Any] = {"kind": kind, "metadata": {"name": "engine", "deletionTimestamp": "2026-11-22T04:00:00Z"}}
    cluster.has(there)
    (problem,) = Runtime().problems(demo(LLM_ALLOW_NO_KEY="true"))
    assert "still being taken down" in problem.sentence
    del there["metadata"]["deletionTimestamp"]
    cluster.has(there)
    assert Runtime().problems(demo(LLM_ALLOW_NO_KEY="true")) == []
