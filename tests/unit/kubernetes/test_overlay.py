"""A deployment as a kustomization: the settings arrive literally, times and sizes follow the model and the settings."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from berth import deployment as deployments
from berth.deployment import Deployment
from berth.kubernetes import overlay, pods, sizes
from berth.kubernetes.overlay import Wanted
from berth.kubernetes.sizes import Sizes
from engine import devices
from llm_service.config.settings import Settings
from tests.unit.kubernetes.conftest import ROOT, Manifest, kustomize, manifests, named

HUGE = 812_000_000_000  # bytes of the largest preset


def made(folder: Path, deployment: Deployment, **wanted: Any) -> list[Manifest]:
    return manifests(kustomize(overlay.write(Wanted(deployment, **wanted), folder)))


def deployed(device: str, *files: str, **shell: str) -> Deployment:
    return deployments.resolve([ROOT / file for file in files], device, {"HF_HUB_OFFLINE": "1", **shell})


def engine_of(documents: list[Manifest]) -> Manifest:
    return named(documents, "Deployment", "engine")["spec"]["template"]["spec"]


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda size: monkeypatch.setattr(sizes, "of", lambda _: Sizes(size))


@pytest.mark.parametrize("device", sorted(devices.names()))
def test_every_device_s_deployment_is_built(tmp_path: Path, device: str) -> None:
    documents = made(tmp_path, deployed(device, "env/models/demo.env"))
    above = named(documents, "ConfigMap", "settings")["data"]
    assert above["LLM_VLLM_MODEL_NAME"] == "demo"
    assert above["VLLM_MAX_MODEL_LEN"] == "", "the model's file unsets what the device's sets"
    assert named(documents, "Service", "llm")["metadata"]["annotations"][overlay.MODEL] == "demo"


def test_settings_arrive_literally(tmp_path: Path) -> None:
    values = [
        '{"a": [1, "x y"]}',
        "'one'",
        '"two"',
        " blank ",
        "$(NAME)",
        "# no comment",
        "true",
        "0x10",
        "ü 漢 😀",
        "a\nb",
    ]
    values += ["\u2028", "~", "a: b", "- a", "\t", "%", "@", "`", "*x", "&x", "!x", "|", ">", "12:30"]
    said = {f"NAME_{place}": value for place, value in enumerate(values)}
    merge = overlay._merge("ConfigMap", "settings", {"data": said})
    overlay._put(tmp_path, {"configMapGenerator": [{"name": "settings"}], "patches": [merge]})
    assert named(manifests(kustomize(tmp_path)), "ConfigMap", "settings")["data"] == said


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_what_is_written_is_yaml_whatever_the_values_are(values: list[str]) -> None:
    assert yaml.safe_load(overlay._yaml(values)) == values


def test_a_start_may_take_as_long_as_the_weights_take_to_be_read(tmp_path: Path, weights: Any) -> None:
    allowed = {}
    for size in (0, 16_100_000_000, HUGE):
        weights(size)
        probe = engine_of(made(tmp_path, deployed("cuda", LLM_VLLM_MODEL_NAME="org/model")))["containers"][0]
        allowed[size] = probe["startupProbe"]["failureThreshold"] * probe["startupProbe"]["periodSeconds"]
    assert allowed[0] == 3600, "unknown: the overlay's own"
    assert allowed[16_100_000_000] == pytest.approx(900 + 161, abs=10)
    assert allowed[HUGE] == pytest.approx(900 + 8120, abs=10)


def test_memory_follows_the_weights_where_no_card_holds_them(tmp_path: Path, weights: Any) -> None:
    weights(16 << 30)
    limits = engine_of(made(tmp_path, deployed("cpu", LLM_VLLM_MODEL_NAME="org/model")))["containers"][0]["resources"]
    assert limits == {"requests": {"cpu": "2", "memory": "24Gi"}, "limits": {"memory": "24Gi"}}


def test_a_volume_holds_the_model(tmp_path: Path, weights: Any) -> None:
    weights(HUGE)
    documents = made(tmp_path, deployed("cuda", LLM_VLLM_MODEL_NAME="org/model"))
    asked = named(documents, "PersistentVolumeClaim", "models")["spec"]["resources"]["requests"]["storage"]
    assert int(asked.removesuffix("Gi")) << 30 > HUGE * 1.2


@pytest.mark.parametrize(("device", "card"), [("cuda", "nvidia.com/gpu"), ("hpu", "habana.ai/gaudi")])
def test_as_many_cards_as_the_settings_spread_the_model_over(tmp_path: Path, device: str, card: str) -> None:
    documents = made(tmp_path, deployed(device, LLM_VLLM_MODEL_NAME="demo", VLLM_TP_SIZE="4"))
    assert engine_of(documents)["containers"][0]["resources"]["limits"][card] == "4"


def test_a_preset_for_two_nodes_is_a_group_of_two(tmp_path: Path) -> None:
    deployment = deployed("cuda", "env/models/llama-3.1-405b-2x8.env")
    documents = made(tmp_path, deployment, nodes=2)
    group = named(documents, "LeaderWorkerSet", "engine-group")["spec"]["leaderWorkerTemplate"]
    assert group["size"] == 2
    for part in ("leaderTemplate", "workerTemplate"):
        assert group[part]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"


def test_grace_follows_the_drains_of_the_settings(tmp_path: Path) -> None:
    shell = {"LLM_VLLM_MODEL_NAME": "demo", "VLLM_SHUTDOWN_TIMEOUT": "300", "LLM_DRAIN_TIMEOUT_SECONDS": "120"}
    documents = made(tmp_path, deployed("cpu", **shell))
    assert engine_of(documents)["terminationGracePeriodSeconds"] == 10 + 300 + 15
    llm = named(documents, "Deployment", "llm")["spec"]["template"]["spec"]
    assert llm["terminationGracePeriodSeconds"] == 5 + 120 + 15
    assert Settings.model_fields["drain_seconds"].default == sizes.SERVICE_DRAIN_S


def test_a_model_on_the_hub_is_fetched_at_its_revision(tmp_path: Path) -> None:
    deployment = deployed("cpu", LLM_VLLM_MODEL_NAME="org/model", VLLM_REVISION="abc", HF_HUB_OFFLINE="")
    (fetch,) = engine_of(made(tmp_path, deployment))["initContainers"]
    assert fetch["command"][-3:] == ["$(LLM_VLLM_MODEL_NAME)", "--revision", "abc"]
    for elsewhere in ("demo", "/cache/huggingface/mine", "s3://bucket/model"):
        assert "initContainers" not in engine_of(made(tmp_path, deployed("cpu", LLM_VLLM_MODEL_NAME=elsewhere)))


def test_a_registry_is_pulled_from(tmp_path: Path) -> None:
    shell = {"LLM_VLLM_MODEL_NAME": "demo", "BERTH_REGISTRY": "registry.example.org/b", "BERTH_VERSION": "9"}
    container = engine_of(made(tmp_path, deployed("cpu", **shell)))["containers"][0]
    assert container["image"] == "registry.example.org/b/vllm-cpu:9"
    assert container["imagePullPolicy"] == "IfNotPresent"


def test_without_a_file_of_keys_the_service_asks_for_none(tmp_path: Path) -> None:
    env = {}
    for keys in ("", "/etc/keys"):
        deployment = deployed("cpu", LLM_VLLM_MODEL_NAME="demo", LLM_API_KEYS_FILE=keys, LLM_ALLOW_NO_KEY="true")
        llm = named(made(tmp_path, deployment), "Deployment", "llm")["spec"]["template"]["spec"]["containers"][0]
        (env[keys],) = (entry.get("value") for entry in llm["env"] if entry["name"] == "LLM_API_KEYS_FILE")
    assert env == {"": "", "/etc/keys": "/run/keys/llm_api_keys"}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["waiting", "terminated", "running"]), st.text(), st.text(), st.integers(0, 255))
def test_whatever_a_pod_says_there_is_a_state_for_it(kind: str, reason: str, message: str, code: int) -> None:
    status = {"name": "engine", "state": {kind: {"reason": reason, "message": message, "exitCode": code}}}
    pod = pods.Pod({"metadata": {"name": "engine-1"}, "status": {"containerStatuses": [status]}})
    assert pod.state() == "pending"
    assert (pod.phase() is None) == (kind != "waiting")
    assert pod.problem() is None or kind == "waiting" or code
