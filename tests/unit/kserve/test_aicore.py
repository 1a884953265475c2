"""SAP AI Core: the ServingTemplate by its published schema, with every parameter of the example, as nobody."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from berth import deployment as deployments
from berth import kserve, runtimes
from berth.errors import BerthError
from berth.kserve import aicore, plans
from engine import names
from tests.support import faces

ROOT = Path(__file__).resolve().parents[3]
NAMED = {"BERTH_REGISTRY": "docker.io/me", "BERTH_VERSION": "v090124-01"}
CUDA = ROOT / "env" / "cuda.env"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


# From SAP's "API Schema Spec ai.sap.com/v1alpha1" and "Serving Templates": fields, which are mandatory, which are text.
class Annotations(Strict):
    scenario: str = Field(alias="scenarios.ai.sap.com/name")
    scenario_description: str = Field("", alias="scenarios.ai.sap.com/description")
    executable: str = Field(alias="executables.ai.sap.com/name")
    executable_description: str = Field("", alias="executables.ai.sap.com/description")


class Labels(Strict):
    version: str = Field(alias="ai.sap.com/version")
    scenario: str = Field(alias="scenarios.ai.sap.com/id", pattern=r"^[a-z0-9][a-z0-9-]*$")
    executable: str = Field("", alias="executables.ai.sap.com/id")


class Metadata(Strict):
    name: str = Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=64)
    annotations: dict[str, str]
    labels: Labels


class Parameter(Strict):
    name: str = Field(pattern=r"^[A-Za-z]\w*$")
    type: str = Field(pattern="^string$")
    default: str
    description: str = ""


class Artifact(Strict):
    name: str = Field(pattern=r"^[A-Za-z0-9_]+$")


class Inputs(Strict):
    parameters: list[Parameter]
    artifacts: list[Artifact] = []


class Wrapped(Strict):
    labels: str
    annotations: str = ""


class Template(Strict):
    apiVersion: str = Field(pattern="^serving.kserve.io/v1beta1$")
    metadata: Wrapped
    spec: str


class Spec(Strict):
    inputs: Inputs
    template: Template


class ServingTemplate(Strict):
    apiVersion: str = Field(pattern="^ai.sap.com/v1alpha1$")
    kind: str = Field(pattern="^ServingTemplate$")
    metadata: Metadata
    spec: Spec


def deployment(*files: Path, **shell: str) -> deployments.Deployment:
    return deployments.resolve([CUDA, *files], shell={**NAMED, **shell}, root=ROOT)


def falcon(tmp_path: Path, *lines: str, **shell: str) -> deployments.Deployment:
    """The example that the names and the plans come from."""
    file = tmp_path / "falcon.env"
    revision = "VLLM_REVISION=cf4b3c42ce2fdfe24f753f0f0d179202fea59c99"
    served = "VLLM_SERVED_MODEL_NAME=tiiuae--falcon-7b-instruct"
    text = "\n".join(("LLM_VLLM_MODEL_NAME=tiiuae/falcon-7b-instruct", revision, served, *lines, ""))
    file.write_text(text, encoding="utf-8")
    return deployment(file, **shell)


def rendered(given: deployments.Deployment) -> dict[str, Any]:
    """The template as it is printed and read again."""
    made: dict[str, Any] = yaml.safe_load(aicore.render(given))
    return made


def checked(template: Mapping[str, Any]) -> ServingTemplate:
    """The template by SAP's schema. Raises ValidationError."""
    Annotations.model_validate(
        {key: value for key, value in template["metadata"]["annotations"].items() if not key.startswith("artifacts.")}
    )
    return ServingTemplate.model_validate(template)


def test_the_example_s_template_is_made_of_its_settings(tmp_path: Path) -> None:
    template = checked(rendered(falcon(tmp_path, "VLLM_TP_SIZE=4", BERTH_REGISTRY="registry.example/genai")))
    assert template.metadata.name == "falcon-7b-instruct-cf4b3c4"
    assert {each.name: each.default for each in template.spec.inputs.parameters} == {
        "image": "registry.example/genai/aicore-vllm:v090124-01",
        "resourcePlan": "infer2.4xl",
        "modelId": "tiiuae/falcon-7b-instruct",
        "revision": "cf4b3c42ce2fdfe24f753f0f0d179202fea59c99",
        "modelName": "tiiuae--falcon-7b-instruct",
    }
    assert [each.name for each in template.spec.inputs.artifacts] == ["tiiuae_falcon_7b_instruct"]


def test_every_parameter_and_artifact_is_used(tmp_path: Path) -> None:
    template = rendered(falcon(tmp_path))
    wrapped = template["spec"]["template"]
    used = wrapped["metadata"]["labels"] + wrapped["spec"]
    for each in template["spec"]["inputs"]["parameters"]:
        assert f"{{{{inputs.parameters.{each['name']}}}}}" in used
    plan = yaml.safe_load(wrapped["metadata"]["labels"])["ai.sap.com/resourcePlan"]
    assert plan == "{{inputs.parameters.resourcePlan}}"
    container = faces.predictor(template, "s3://bucket/model.tar", modelId="org/other", image="i:1")["containers"][0]
    environ = faces.of_container([], container)
    assert (container["image"], environ[names.MODEL]) == ("i:1", "org/other")
    assert (environ["STORAGE_URI"], environ["HF_HUB_CACHE"]) == ("s3://bucket/model.tar", "/mnt/models")


@pytest.mark.parametrize("file", sorted((ROOT / "env" / "models").glob("*.env")), ids=lambda file: file.stem)
def test_every_model_s_template_keeps_to_the_schema_and_runs_as_nobody(file: Path) -> None:
    given = deployment(file)
    cards = int(given.value("VLLM_TP_SIZE", "1")) * int(given.value("VLLM_PP_SIZE", "1"))
    if cards > 8:
        with pytest.raises(BerthError, match=f"ask for {cards} cards, and the largest resource plan has 8"):
            aicore.render(given)
        return
    template = rendered(given)
    checked(template)
    container = faces.predictor(template)["containers"][0]
    own = container["securityContext"]
    assert (own["runAsUser"], own["runAsGroup"], own["runAsNonRoot"]) == (65534, 65534, True)
    assert (own["allowPrivilegeEscalation"], own["capabilities"]) == (False, {"drop": ["all"]})
    environ = faces.of_container([], container)
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert environ["HOME"] in mounts
    assert environ["HOME"] == container["workingDir"] == "/nonexistent"
    assert all(environ[name].startswith("/nonexistent/") for name in ("HF_HOME", "VLLM_CACHE_ROOT"))


def test_the_smallest_plan_with_enough_cards_is_taken(tmp_path: Path) -> None:
    assert [plans.smallest("cuda", cards).id for cards in (1, 2, 4, 5, 8)] == [
        *("infer2.l", "infer2.4xl", "infer2.4xl", "train2.8xl", "train2.8xl")
    ]
    assert {(plan.id, plan.cards * plan.card_gb) for plan in plans.known() if plan.card} == {
        *(("infer2.l", 24), ("infer2.4xl", 96), ("train2.8xl", 320), ("train2.8xxl", 320))
    }
    with pytest.raises(BerthError, match="no resource plan with hpu"):
        plans.smallest("hpu", 1)


def test_the_built_in_model_needs_no_artifact(tmp_path: Path) -> None:
    template = rendered(deployment(ROOT / "env" / "models" / "demo.env"))
    assert "artifacts" not in template["spec"]["inputs"]
    environ = faces.of_container([], faces.predictor(template)["containers"][0])
    assert environ[names.MODEL] == "demo"
    assert not {"STORAGE_URI", "HF_HUB_OFFLINE"} & environ.keys()


@pytest.mark.parametrize("version", ["", "0.1.0", "v310299-01", "v090124-1", "v090124-00", "v90124-01"])
def test_an_image_s_version_is_a_day_and_a_number(tmp_path: Path, version: str) -> None:
    with pytest.raises(BerthError, match="images of AI Core are versioned vDDMMYY-NN"):
        aicore.render(falcon(tmp_path, BERTH_VERSION=version))


def test_without_a_registry_there_is_nothing_to_pull(tmp_path: Path) -> None:
    with pytest.raises(BerthError, match="BERTH_REGISTRY is not set"):
        aicore.render(falcon(tmp_path, BERTH_REGISTRY=""))


@pytest.mark.parametrize("model", ["s3://bucket/model", "/mnt/models", "a/b/c"])
def test_a_model_without_a_name_on_the_hub_has_no_artifact(tmp_path: Path, model: str) -> None:
    with pytest.raises(BerthError, match="no name on the hub"):
        aicore.render(falcon(tmp_path, LLM_VLLM_MODEL_NAME=model))


def test_what_ai_core_would_take_for_a_parameter_is_refused(tmp_path: Path) -> None:
    given = falcon(tmp_path, "VLLM_CHAT_TEMPLATE='{{ messages }}'")
    with pytest.raises(BerthError, match=r"falcon.env:4: VLLM_CHAT_TEMPLATE holds '\{\{'"):
        aicore.render(given)


def test_no_secret_is_in_it_and_what_has_no_effect_is_named(tmp_path: Path) -> None:
    lines = ("LLM_STREAM_FORMAT=repr", "LLM_API_KEYS_FILE=/etc/berth/keys")
    text = aicore.render(falcon(tmp_path, *lines, HF_TOKEN="hf_secret", VLLM_API_KEY="key_secret"))
    assert "secret" not in text.replace("imagePullSecrets", "")
    assert "LLM_API_KEYS_FILE, LLM_STREAM_FORMAT" in text.partition("apiVersion")[0]
    assert "/etc/berth/keys" not in text


def test_the_schema_refuses_what_sap_would(tmp_path: Path) -> None:
    template = rendered(falcon(tmp_path))
    template["spec"]["inputs"]["artifacts"][0]["name"] = "with-dashes"
    template["spec"]["template"]["spec"] = {"predictor": {}}
    with pytest.raises(ValidationError) as refusal:
        checked(template)
    assert refusal.value.error_count() == 2


@pytest.mark.parametrize("face", kserve.FACES)
def test_what_is_only_printed_is_not_started(face: str) -> None:
    with pytest.raises(BerthError, match=f"{face} is printed, not started"):
        runtimes.load(face)
