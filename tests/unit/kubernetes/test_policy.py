"""The safety list, for every pod of every kustomization: a new overlay or component is held to it without an edit."""

from typing import Any

import pytest

from engine import decisions
from llm_service.config.settings import Settings
from tests.unit.kubernetes.conftest import (
    COMPONENTS,
    DEVICES,
    Manifest,
    every_build,
    every_build_for_a_cluster,
    named,
    templates,
)

Build = tuple[str, str]


def pods(documents: list[Manifest]) -> list[tuple[str, Manifest]]:
    found = [(name, template["spec"]) for name, template in templates(documents)]
    assert len(found) >= 2
    return found


def containers(documents: list[Manifest]) -> list[tuple[str, Manifest]]:
    return [
        (f"{pod}: {each['name']}", each)
        for pod, spec in pods(documents)
        for each in [*spec.get("initContainers", []), *spec["containers"]]
    ]


@every_build
def test_no_pod_runs_as_root_or_with_a_token_of_the_cluster(made: Any, build: Build) -> None:
    for name, pod in pods(made(build)):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, f"{name}: Kubernetes would set VLLM_… and LLM_… variables"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name


@every_build
def test_no_container_can_gain_rights_or_write_to_its_image(made: Any, build: Build) -> None:
    for name, container in containers(made(build)):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert not security.get("privileged"), name
        assert "runAsUser" not in security, f"{name}: the pod says it"


@every_build
def test_nothing_of_a_node_is_mounted_and_what_is_written_to_is_bounded(made: Any, build: Build) -> None:
    for name, pod in pods(made(build)):
        for volume in pod["volumes"]:
            assert "hostPath" not in volume, name
            assert "emptyDir" not in volume or volume["emptyDir"].get("sizeLimit"), f"{name}: {volume['name']}"


@every_build
def test_every_container_says_what_it_needs_and_how_much_memory_it_may_have(made: Any, build: Build) -> None:
    for name, container in containers(made(build)):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
        assert "memory" in container["resources"]["limits"], name


@every_build
def test_no_secret_stands_in_a_manifest(made: Any, build: Build) -> None:
    for each in made(build):
        assert each["kind"] != "Secret"
        for name, value in (each.get("data") or {}).items():
            assert not value or name not in ("HF_TOKEN", "VLLM_API_KEY"), each["metadata"]["name"]
    for name, container in containers(made(build)):
        assert not any("secretKeyRef" in (entry.get("valueFrom") or {}) for entry in container.get("env", [])), name


@every_build
def test_no_face_writes_a_flag_of_vllm(made: Any, build: Build) -> None:
    for name, container in containers(made(build)):
        assert "args" not in container, name
        assert container.get("command", ["python", "-P", "-m", "berth", "fetch"])[:4] == ["python", "-P", "-m", "berth"]


@every_build
def test_whatever_serves_is_probed_by_its_image_s_own_check_and_steps_out_before_it_ends(
    made: Any, build: Build
) -> None:
    checks = {"engine": "engine.healthcheck", "llm": "llm_service.healthcheck"}
    drains = {"engine": decisions.SHUTDOWN_TIMEOUT_S, "llm": Settings.model_fields["drain_seconds"].default}
    for name, pod in pods(made(build)):
        container = pod["containers"][0]
        steps_out = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
        assert pod["terminationGracePeriodSeconds"] >= steps_out + drains[container["name"]] + 10, name
        if name.endswith("workerTemplate"):
            assert not {"startupProbe", "readinessProbe", "livenessProbe"} & container.keys(), (
                "a follower serves nothing"
            )
            continue
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["exec"]["command"][-1] == checks[container["name"]], (name, probe)


@every_build_for_a_cluster
def test_only_the_service_reaches_the_engine(made: Any, build: Build) -> None:
    documents = made(build)
    engine_labels = {"app.kubernetes.io/name": "engine", "app.kubernetes.io/part-of": "berth"}
    policies = [each["spec"] for each in documents if each["kind"] == "NetworkPolicy"]
    closed = [each for each in policies if each["podSelector"]["matchLabels"] == engine_labels]
    assert closed
    for name, template in templates(documents):
        labels = template["metadata"]["labels"].items()
        assert any(each["podSelector"]["matchLabels"].items() <= labels for each in policies), name
    allowed = {"llm": {8008}, "engine": set(), "prometheus": {8008}}
    for policy in closed:
        assert policy["policyTypes"] == ["Ingress"]
        for rule in policy["ingress"]:
            assert rule["from"], "an empty list lets everybody in"
            for source in rule["from"]:
                name = source["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
                assert {port["port"] for port in rule.get("ports", [])} == allowed[name]
                assert name != "engine" or build[0] == "multi-node" or build[1] == "multi-node"
                assert name != "prometheus" or build[1] in {"autoscaling", "monitoring"}


@every_build_for_a_cluster
def test_no_service_has_a_name_whose_variables_vllm_would_read(made: Any, build: Build) -> None:
    services = {each["metadata"]["name"] for each in made(build) if each["kind"] == "Service"}
    assert services == {"engine", "llm"}
    for each in made(build):
        if each["kind"] == "Service":
            assert each["spec"].get("type", "ClusterIP") == "ClusterIP", "nothing is published by itself"


@every_build_for_a_cluster
def test_every_service_and_budget_finds_its_pods(made: Any, build: Build) -> None:
    documents = made(build)
    labels = [template["metadata"]["labels"].items() for _, template in templates(documents)]
    for each in documents:
        if each["kind"] == "Service":
            wanted = each["spec"]["selector"]
        elif each["kind"] == "PodDisruptionBudget":
            wanted = each["spec"]["selector"]["matchLabels"]
        else:
            continue
        assert sum(wanted.items() <= own for own in labels) >= 1, each["metadata"]["name"]
    budgets = [each for each in documents if each["kind"] == "PodDisruptionBudget"]
    assert {each["metadata"]["name"] for each in budgets} == {"engine", "llm"}


@every_build_for_a_cluster
def test_pods_are_spread_over_nodes(made: Any, build: Build) -> None:
    for name, pod in pods(made(build)):
        (spread,) = pod["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname", name


@pytest.mark.parametrize("device", DEVICES)
def test_images_that_name_no_registry_are_never_pulled(made: Any, device: str) -> None:
    for _, container in containers(made((device, ""))):
        assert container["imagePullPolicy"] == "Never"
    for _, container in containers(made((device, "registry"))):
        assert container["imagePullPolicy"] == "IfNotPresent"


def test_the_service_reads_the_engine_s_key_and_not_the_token_of_the_hub(made: Any) -> None:
    llm = named(made((DEVICES[0], "")), "Deployment", "llm")["spec"]["template"]["spec"]
    secrets = {volume["name"]: volume["secret"] for volume in llm["volumes"] if "secret" in volume}
    assert secrets["secrets"]["items"] == [{"key": "vllm_api_key", "path": "vllm_api_key"}]
    env = {entry["name"]: entry["value"] for entry in llm["containers"][0]["env"]}
    assert env["BIND_ADDR"] == "0.0.0.0"
    assert env["LLM_API_KEYS_FILE"] == "/run/keys/llm_api_keys"


def test_there_is_a_component_for_each_wish() -> None:
    assert {"fetch", "multi-node", "autoscaling", "registry"} <= set(COMPONENTS)
