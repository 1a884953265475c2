"""What kustomize builds: valid for the last three versions of Kubernetes, from the very env files."""

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from dotenv import dotenv_values

from berth.kubernetes import write_env
from engine import devices
from tests.unit.kubernetes.conftest import DEVICES, ROOT, Manifest, every_build, named, templates

Build = tuple[str, str]
# What operators of their own bring; their pods are checked as those of a Deployment.
FOREIGN = {"LeaderWorkerSet", "PodMonitor", "PrometheusRule", "ScaledObject"}
MINOR = int(str(kubernetes_validate.latest_version()).split(".")[1])
VERSIONS = [f"1.{MINOR - back}" for back in range(3)]


@functools.cache
def validate(manifest: str, version: str) -> None:
    """Once for each: most of what two kustomizations come to is the same."""
    kubernetes_validate.validate(json.loads(manifest), version, strict=True)


def wrapped(template: Manifest) -> Manifest:
    """A pod template as a Deployment, whose schema it is then held to."""
    spec = {"selector": {"matchLabels": template["metadata"]["labels"]}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec}


@every_build
@pytest.mark.parametrize("version", VERSIONS)
def test_all_manifests_are_valid(made: Any, build: Build, version: str) -> None:
    documents = made(build)
    for each in [*documents, *(wrapped(template) for _, template in templates(documents))]:
        if each["kind"] not in FOREIGN:
            validate(json.dumps(each, sort_keys=True), version)


def test_every_device_has_an_overlay() -> None:
    assert sorted(devices.names()) == DEVICES


@pytest.mark.parametrize("device", DEVICES)
def test_the_settings_are_those_of_the_env_file_and_of_no_other_device(made: Any, device: str) -> None:
    documents = made((device, ""))
    maps = [each for each in documents if each["kind"] == "ConfigMap"]
    assert len(maps) == 2, "the device's, and the one for what is above it"
    own = named(documents, "ConfigMap", device)
    assert own["data"] == dotenv_values(ROOT / "env" / f"{device}.env", interpolate=False)
    for part in ("engine", "llm"):
        container = named(documents, "Deployment", part)["spec"]["template"]["spec"]["containers"][0]
        read = [source["configMapRef"]["name"] for source in container["envFrom"]]
        assert read == [own["metadata"]["name"], named(documents, "ConfigMap", "settings")["metadata"]["name"]]


def test_the_list_of_env_files_is_up_to_date() -> None:
    assert write_env.TARGET.read_text() == write_env.text(), "run: python -m berth.kubernetes.write_env"


def test_a_changed_env_file_gives_the_pods_another_name_to_read(tmp_path: Path) -> None:
    """So that `kubectl apply` starts them anew."""
    (tmp_path / "a.env").write_text("NAME=1\n")
    (tmp_path / "kustomization.yaml").write_text("configMapGenerator: [{name: a, envs: [a.env]}]")
    first = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True).stdout
    (tmp_path / "a.env").write_text("NAME=2\n")
    assert subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True).stdout != first


def test_what_fetches_is_the_engine_in_all_that_it_reads(made: Any) -> None:
    pod = named(made(("cuda", "fetch")), "Deployment", "engine")["spec"]["template"]["spec"]
    (fetch,), (engine,) = pod["initContainers"], pod["containers"]
    for name in ("image", "imagePullPolicy", "envFrom", "securityContext"):
        assert fetch[name] == engine[name]
    assert fetch["command"][-2:] == ["fetch", "$(LLM_VLLM_MODEL_NAME)"]
    assert {"name": "models", "mountPath": "/cache/huggingface"} in fetch["volumeMounts"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_group_of_nodes_has_the_device_s_own_pods(made: Any, device: str) -> None:
    alone, documents = made((device, "")), made((device, "multi-node"))
    engine = named(alone, "Deployment", "engine")["spec"]["template"]["spec"]
    assert [each["metadata"]["name"] for each in documents if each["kind"] == "Deployment"] == ["llm"]
    group = named(documents, "LeaderWorkerSet", "engine-group")["spec"]["leaderWorkerTemplate"]
    assert group["restartPolicy"] == "RecreateGroupOnPodRestart"
    own = named(documents, "ConfigMap", device)["metadata"]["name"]
    for part, rank in (("leaderTemplate", "head"), ("workerTemplate", "follower")):
        template = group[part]
        container = template["spec"]["containers"][0]
        assert template["metadata"]["labels"]["app.kubernetes.io/component"] == rank
        assert template["spec"]["volumes"] == engine["volumes"]
        assert container["resources"] == engine["containers"][0]["resources"]
        assert container["envFrom"][0]["configMapRef"]["name"] == own
        told = {entry["name"]: entry for entry in container["env"]}
        assert told["VLLM_NNODES"]["value"] == "$(LWS_GROUP_SIZE)"
        assert told["VLLM_MASTER_ADDR"]["value"] == "$(LWS_LEADER_ADDRESS)"
        assert "worker-index" in told["VLLM_NODE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"]
        assert ("VLLM_HEADLESS" in told) is (rank == "follower")
    assert named(documents, "Service", "engine")["spec"]["selector"]["app.kubernetes.io/component"] == "head"
    for claim in ("models", "compiled"):
        assert named(documents, "PersistentVolumeClaim", claim)["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_scaler_goes_by_waiting_requests(made: Any) -> None:
    documents = made(("cuda", "autoscaling"))
    scaler = named(documents, "ScaledObject", "engine")["spec"]
    assert scaler["scaleTargetRef"]["name"] == "engine"
    assert "vllm:num_requests_waiting" in scaler["triggers"][0]["metadata"]["query"]
    assert "replicas" not in named(documents, "Deployment", "engine")["spec"], "the scaler says how many"
