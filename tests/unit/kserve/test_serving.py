"""KServe: the pod that it makes of runtime and service is a safe one, complete, and keeps to KServe's own schemas."""

import functools
import os
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from berth import deployment as deployments
from berth.errors import BerthError
from berth.kserve import aicore, serving
from berth.kubernetes import kustomize, sizes
from engine import devices
from tests.support import faces
from tests.unit.kserve import published

ROOT = Path(__file__).resolve().parents[3]
OF_KSERVE = {"minReplicas", "maxReplicas", "deploymentStrategy", "model"}  # of a predictor; the rest is a pod's
CRDS = "BERTH_KSERVE_CRDS"
Documents = dict[str, Any]
built_once = functools.cache(kustomize.documents)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub is asked for a model's size."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl on PATH, which builds kustomizations")
    monkeypatch.setattr(sizes, "of", lambda _: sizes.Sizes(0))
    monkeypatch.setattr(kustomize, "documents", built_once)


def resolved(device: str, **shell: str) -> deployments.Deployment:
    return deployments.resolve([ROOT / "env" / f"{device}.env"], shell=shell, root=ROOT)


@functools.cache
def made(device: str) -> Documents:
    """The two of KServe's kinds, by kind."""
    found = serving.documents(resolved(device, LLM_VLLM_MODEL_NAME="org/Some_Model-1.5", VLLM_TP_SIZE="2"))
    return {each["kind"]: each for each in found}


def pod(documents: Documents) -> dict[str, Any]:
    """The pod as KServe merges it: the runtime's containers and volumes, the rest from the predictor."""
    runtime, predictor = documents["ServingRuntime"]["spec"], documents["InferenceService"]["spec"]["predictor"]
    engine, *rest = runtime["containers"]
    own = {name: value for name, value in predictor.items() if name not in OF_KSERVE}
    merged = {**engine, "resources": predictor["model"]["resources"]}
    volumes = {"volumes": runtime["volumes"], "tolerations": runtime.get("tolerations", [])}
    return {**own, **volumes, "containers": [merged, *rest]}


every_device = pytest.mark.parametrize("device", devices.names())


@every_device
def test_the_pod_is_whole_and_valid(device: str) -> None:
    spec = pod(made(device))
    names = [volume["name"] for volume in spec["volumes"]]
    containers = [*spec["containers"], *spec["initContainers"]]
    assert len(names) == len(set(names))
    assert {mount["name"] for each in containers for mount in each["volumeMounts"]} == set(names)
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    kubernetes_validate.validate(manifest, str(kubernetes_validate.latest_version()), strict=True)


@every_device
def test_the_pod_keeps_to_the_safety_list(device: str) -> None:
    spec = pod(made(device))
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    for each in (*spec["containers"], *spec["initContainers"]):
        own = each["securityContext"]
        assert own["allowPrivilegeEscalation"] is False, each["name"]
        assert own["readOnlyRootFilesystem"] is True, each["name"]
        assert own["capabilities"] == {"drop": ["ALL"]}, each["name"]
        assert "memory" in each["resources"]["limits"], each["name"]
    assert not [volume for volume in spec["volumes"] if "hostPath" in volume]


@every_device
def test_only_the_service_can_be_reached_and_it_wants_keys(device: str) -> None:
    engine, service = pod(made(device))["containers"]
    told = {each["name"]: each.get("value") for each in service["env"]}
    assert (engine["name"], service["name"]) == ("kserve-container", "transformer-container")
    assert "ports" not in engine
    assert {each["name"]: each.get("value") for each in engine["env"]}["LLM_VLLM_HOST"] == "127.0.0.1"
    assert [port["containerPort"] for port in service["ports"]] == [9000]
    assert told["LLM_VLLM_ENDPOINT"] == "http://127.0.0.1:8008"
    assert told["LLM_API_KEYS_FILE"] in [f"{mount['mountPath']}/llm_api_keys" for mount in service["volumeMounts"]]


@every_device
def test_nothing_in_it_is_a_template_to_kserve(device: str) -> None:
    """KServe reads a runtime's containers as Go templates: settings stand in a ConfigMap, which it does not read."""
    assert "{{" not in str(made(device)["ServingRuntime"]["spec"]["containers"])


def test_as_many_cards_are_asked_for_as_share_the_model() -> None:
    assert pod(made("cuda"))["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert made("cuda")["InferenceService"]["metadata"]["name"] == "some-model-1-5"


def test_a_lock_in_front_of_it_is_believed() -> None:
    open_to_all = {"ServingRuntime": None}
    for each in serving.documents(resolved("cpu", LLM_VLLM_MODEL_NAME="demo", LLM_ALLOW_NO_KEY="true")):
        open_to_all[each["kind"]] = each
    runtime: Any = open_to_all["ServingRuntime"]
    told = {each["name"]: each.get("value") for each in runtime["spec"]["containers"][1]["env"]}
    assert not told["LLM_API_KEYS_FILE"]


def test_a_lock_that_is_said_not_to_be_there_is_none() -> None:
    closed = resolved("cpu", LLM_VLLM_MODEL_NAME="demo", LLM_ALLOW_NO_KEY="false")
    (runtime,) = [each for each in serving.documents(closed) if each["kind"] == "ServingRuntime"]
    told = {each["name"]: each.get("value") for each in runtime["spec"]["containers"][1]["env"]}
    assert told["LLM_API_KEYS_FILE"]
    assert "berth-clients" in serving.render(closed)


def test_secrets_are_named_and_not_shown(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("hashed-key\n")
    shell = {"LLM_VLLM_MODEL_NAME": "demo", "HF_TOKEN": "hf_shown", "LLM_API_KEYS_FILE": str(keys)}
    text = serving.render(resolved("cpu", **shell))
    assert "create secret generic berth-clients --from-file=llm_api_keys=FILE" in text
    assert "create secret generic berth-engine --from-file=hf_token=FILE" in text
    assert not {"hf_shown", "hashed-key"} & set(text.split())


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ({"LLM_TLS_CERT_FILE": "/cert.pem"}, "under KServe its ingress speaks HTTPS"),
        ({"LLM_VLLM_MODEL_NAME": str(ROOT / "models" / "demo")}, "lies on this machine"),
        ({"BERTH_NODES": "2"}, "spread over 2 nodes"),
    ],
)
def test_what_no_pod_of_kserve_can_hold_is_refused(shell: dict[str, str], said: str) -> None:
    with pytest.raises(BerthError, match=said):
        serving.documents(resolved("cuda", **{"LLM_VLLM_MODEL_NAME": "org/model", **shell}))


def crds() -> Path:
    """KServe's own resource definitions, which are not part of this repository."""
    folder = os.environ.get(CRDS)
    if not folder:
        pytest.skip(f"KServe's CRDs are not here: {CRDS}=FOLDER, config/crd/full of a checkout of kserve/kserve")
    return Path(folder)


@every_device
@pytest.mark.parametrize("kind", ["ServingRuntime", "InferenceService"])
def test_kserve_s_own_schemas_take_it(device: str, kind: str) -> None:
    given = made(device)[kind]
    schema = published.schema(crds(), kind, given["apiVersion"].rpartition("/")[2])
    assert list(published.wrong(given, schema)) == []
    given = {**given, "spec": {**given["spec"], "predicter": 1}}
    assert list(published.wrong(given, schema)) == [".spec: predicter is no field of it"]


def test_kserve_s_own_schema_takes_what_ai_core_makes_of_the_template() -> None:
    named = {"BERTH_REGISTRY": "docker.io/me", "BERTH_VERSION": "v090124-01"}
    template = aicore.serving_template(resolved("cuda", LLM_VLLM_MODEL_NAME="org/model", **named))
    predictor = faces.predictor(template)
    service = {"apiVersion": template["spec"]["template"]["apiVersion"], "spec": {"predictor": predictor}}
    assert list(published.wrong(service, published.schema(crds(), "InferenceService", "v1beta1"))) == []
