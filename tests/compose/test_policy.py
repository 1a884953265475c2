"""What holds for every env file that the repository has, over the configuration that Compose renders from it."""

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import yaml

from engine import devices
from tests.compose.conftest import WriteEnv
from tests.support.compose import ROOT, Project, device_files, model_files, needs_compose

Rendered = Callable[..., Project]
COMPOSE = ROOT / "compose"
KEYS = "/run/llm_api_keys"
# Each file of this machine that the service reads, by its setting.
FILES = {"LLM_API_KEYS_FILE": KEYS, "LLM_TLS_CERT_FILE": "/run/llm_tls_cert", "LLM_TLS_KEY_FILE": "/run/llm_tls_key"}
# The one that the engine reads: the keys of an object store.
STORE, STORE_KEYS = "AWS_SHARED_CREDENTIALS_FILE", "/run/aws_credentials"
# Not those that give the engine another program, add services, or are for Podman: test_quantize.py, test_router.py,
# test_multinode.py, tests/podman.
_OTHERS = ("base", "settings", "quantize", "compress", "router", "multinode", "multinode-ray", "podman")
OVERLAYS = sorted(
    path.name for path in COMPOSE.glob("*.yaml") if path.stem not in _OTHERS and "monitoring" not in path.stem
)

# What an overlay may say of a service: its image, and what the device needs. All else is base.yaml's.
OVERLAY_KEYS = {
    "image", "build", "runtime", "devices", "deploy", "extends", "cpus", "cpuset", "group_add", "healthcheck", "tmpfs"
}  # fmt: skip


@cache
def render(file: str) -> dict[str, Any]:
    needs_compose()
    return Project([file]).config()


@pytest.fixture(params=device_files())
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return deepcopy(render(request.param))


def long_running(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, service in config["services"].items():
        if name != "prepare":
            yield name, service


def test_there_is_one_project_with_two_services_and_a_first_step(config: dict[str, Any]) -> None:
    assert yaml.safe_load((COMPOSE / "base.yaml").read_text())["name"] == "berth"
    assert set(config["services"]) == {"engine", "llm", "prepare"}


def test_nothing_is_privileged_or_shares_a_namespace_with_the_host(config: dict[str, Any]) -> None:
    for name, service in config["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        assert service["pids_limit"] > 0, name
        assert not service.keys() & {"privileged", "cap_add", "ipc", "pid", "uts", "userns_mode", "container_name"}, (
            name
        )
        assert service.get("network_mode") == ("none" if name == "prepare" else None), name
        assert all("docker.sock" not in str(mount) for mount in service.get("volumes", [])), name


def test_the_services_are_read_only_and_their_writable_places_are_named(config: dict[str, Any]) -> None:
    for name, service in long_running(config):
        assert service["read_only"] is True, name
        assert service["tmpfs"], name
        for mount in service["volumes"]:
            file = mount["target"] in (*FILES.values(), STORE_KEYS)
            assert mount["type"] == ("bind" if file else "volume"), name
            assert mount.get("read_only", False) == (name == "llm" or file or mount["target"] == "/run/secrets"), name
    mounts = {mount["target"]: mount["source"] for mount in config["services"]["engine"]["volumes"]}
    caches = {"/cache/huggingface": "models", "/cache/vllm": "compiled"}
    assert mounts == {**caches, "/run/secrets": "secrets", "/run/berth": "secrets", STORE_KEYS: "/dev/null"}


def test_a_secret_is_asked_for_by_the_first_step_only(config: dict[str, Any]) -> None:
    """Compose refuses a secret from the environment in a read-only service, and only once it is set."""
    assert {secret["source"] for secret in config["services"]["prepare"]["secrets"]} == {"hf_token", "vllm_api_key"}
    assert not [name for name, service in long_running(config) if "secrets" in service]
    for name in ("engine", "prepare"):
        assert config["services"][name]["environment"]["HF_TOKEN"] == ""
        assert config["services"][name]["environment"]["VLLM_API_KEY"] == ""


def test_ports_are_published_on_loopback(config: dict[str, Any]) -> None:
    published = {
        name: [(port["host_ip"], port["published"], port["target"]) for port in service["ports"]]
        for name, service in long_running(config)
    }
    assert published == {"engine": [("127.0.0.1", "8008", 8008)], "llm": [("127.0.0.1", "9000", 9000)]}


@pytest.mark.parametrize("given", [{}, {setting: f"/etc/{setting}" for setting in FILES}])
def test_the_services_files_are_this_machines_and_none_is_an_empty_one(
    rendered: Rendered, given: dict[str, str]
) -> None:
    services = rendered("env/cpu.env", shell=given).config()["services"]
    for setting, target in FILES.items():
        for name in ("llm", "prepare"):
            mounts = [mount for mount in services[name]["volumes"] if mount["target"] == target]
            source = given.get(setting, "/dev/null")
            assert [(mount["source"], mount["read_only"]) for mount in mounts] == [(source, True)], name
            assert services[name]["environment"][setting] == (target if given else ""), name
        assert target not in [mount["target"] for mount in services["engine"]["volumes"]]


@pytest.mark.parametrize("given", ["", "/home/me/.aws/credentials"])
def test_the_keys_of_an_object_store_are_a_file_for_the_engine_alone(rendered: Rendered, given: str) -> None:
    services = rendered("env/cpu.env", shell={STORE: given} if given else {}).config()["services"]
    for name in ("engine", "prepare"):
        (mount,) = [mount for mount in services[name]["volumes"] if mount["target"] == STORE_KEYS]
        assert (mount["source"], mount["read_only"]) == (given or "/dev/null", True), name
        assert services[name]["environment"][STORE] == (STORE_KEYS if given else ""), name
    assert STORE not in services["llm"]["environment"]
    assert STORE_KEYS not in [mount["target"] for mount in services["llm"]["volumes"]]


def test_bind_addr_never_opens_the_engine(rendered: Rendered) -> None:
    services = rendered("env/cpu.env", shell={"BIND_ADDR": "0.0.0.0"}).config()["services"]
    assert services["engine"]["ports"][0]["host_ip"] == "127.0.0.1"
    assert services["llm"]["ports"][0]["host_ip"] == "0.0.0.0"


def test_containers_get_longer_to_stop_than_answers_get_to_finish(config: dict[str, Any]) -> None:
    for name, service in long_running(config):
        assert service["stop_grace_period"] == "1m15s", name
        assert service["restart"] == "unless-stopped", name


def test_health_checks_are_patient_first_and_frequent_then(config: dict[str, Any]) -> None:
    for name, service in long_running(config):
        check = service["healthcheck"]
        assert {"start_period", "start_interval", "interval", "timeout", "retries"} <= check.keys(), name
        assert "test" not in check, "the image's own check is the one"
    assert re.match(r"[1-9]\d*h", config["services"]["engine"]["healthcheck"]["start_period"])


def test_the_service_waits_for_no_healthy_engine(config: dict[str, Any]) -> None:
    assert config["services"]["llm"]["depends_on"]["engine"]["condition"] == "service_started"
    assert config["services"]["engine"]["depends_on"]["prepare"]["condition"] == "service_completed_successfully"


@pytest.mark.parametrize("file", device_files())
def test_an_env_file_selects_its_own_device_everywhere(file: str) -> None:
    device = file.removeprefix("env/").removesuffix(".env")
    config = render(file)
    engine = config["services"]["engine"]
    assert engine["image"] == f"berth/vllm-{device}:0.1.0" == config["services"]["prepare"]["image"]
    assert engine["build"]["dockerfile"] == f"Dockerfile.{device}"
    assert engine["environment"]["LLM_DEVICE"] == device
    assert engine["environment"]["BERTH_DEVICE_ENV"] == file


def test_the_device_in_the_shell_cannot_mix_two_devices(rendered: Rendered) -> None:
    engine = rendered("env/hpu.env", shell={"LLM_DEVICE": "cuda"}).config()["services"]["engine"]
    assert (engine["image"], engine["runtime"]) == ("berth/vllm-hpu:0.1.0", "habana")


def test_the_base_names_no_device() -> None:
    said = (COMPOSE / "base.yaml").read_text().replace("env/cpu.env", "")
    words = {*devices.names(), "gpu", "nvidia", "habana", "gaudi"}
    assert not re.findall(rf"(?i)\b(?:{'|'.join(words)})\b", said)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_says_what_the_device_needs_and_nothing_else(overlay: str) -> None:
    said = yaml.safe_load((COMPOSE / overlay).read_text())
    assert set(said) == {"services"}
    for service in said["services"].values():
        assert service.keys() <= OVERLAY_KEYS
        assert service.get("healthcheck", {}).keys() <= {"start_period"}


def test_gpus_by_count_or_by_id(rendered: Rendered) -> None:
    def asked(**shell: str) -> dict[str, Any]:
        config = rendered("env/cuda.env", shell=shell).config()
        (request,) = config["services"]["engine"]["deploy"]["resources"]["reservations"]["devices"]
        assert (request.pop("driver"), request.pop("capabilities")) == ("nvidia", ["gpu"])
        return dict(request)

    assert asked() == {"count": -1}
    assert asked(BERTH_GPUS="2") == {"count": 2}
    assert asked(BERTH_GPU_IDS="0,2") == {"device_ids": ["0,2"]}
    assert asked(BERTH_GPUS="2", BERTH_GPU_IDS="0,2") == {"device_ids": ["0,2"]}


def test_gaudi_through_its_runtime_and_by_plain_devices(rendered: Rendered, write_env: WriteEnv) -> None:
    services = rendered("env/hpu.env").config()["services"]
    assert {name: service.get("runtime") for name, service in services.items()} == {
        "engine": "habana", "llm": "runc", "prepare": "runc",
    }  # fmt: skip
    plain = "compose/base.yaml:compose/settings.yaml:compose/hpu.yaml:compose/hpu-devices.yaml"
    engine = rendered("env/hpu.env", shell={"COMPOSE_FILE": plain}).config()["services"]["engine"]
    assert engine["runtime"] == "runc"
    assert [device["source"] for device in engine["devices"]] == ["/dev/accel"]


def test_build_inputs_are_absent_unless_set(config: dict[str, Any]) -> None:
    build = config["services"]["engine"]["build"]
    assert build["args"] == {"PACKAGE_INDEX": ""}
    assert build["additional_contexts"] == {"wheels": "docker-image://scratch"}
    assert config["secrets"]["ca"]["file"] == "/dev/null"


def test_build_inputs_reach_the_build(rendered: Rendered) -> None:
    given = {
        "BERTH_BASE_IMAGE": "mirror/python:3.11",
        "BERTH_PACKAGE_INDEX": "https://index.example/simple",
        "BERTH_WHEELS": "/srv/wheels",
        "BERTH_CA_BUNDLE": "/etc/ssl/site.pem",
    }
    config = rendered("env/cpu.env", shell=given).config()
    build = config["services"]["engine"]["build"]
    assert build["args"] == {"BASE_IMAGE": "mirror/python:3.11", "PACKAGE_INDEX": "https://index.example/simple"}
    assert build["additional_contexts"] == {"wheels": "/srv/wheels"}
    assert config["secrets"]["ca"]["file"] == "/etc/ssl/site.pem"


@pytest.mark.parametrize("model", model_files())
@pytest.mark.parametrize("device", device_files())
def test_every_model_goes_over_every_device(rendered: Rendered, device: str, model: str) -> None:
    environment = rendered(device, model).config()["services"]["engine"]["environment"]
    given = dict(line.split("=", 1) for line in (ROOT / model).read_text().splitlines() if not line.startswith("#"))
    assert environment["LLM_VLLM_MODEL_NAME"] == given["LLM_VLLM_MODEL_NAME"]
    assert environment["VLLM_MAX_MODEL_LEN"] == given["VLLM_MAX_MODEL_LEN"]
