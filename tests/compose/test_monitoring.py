"""compose/monitoring*.yaml: what watches a deployment is as locked up as the deployment, and changes nothing of it."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.compose import ROOT, Project, device_files

Rendered = Callable[..., Project]
COMPOSE = ROOT / "compose"
WATCHERS = {"prometheus", "grafana", "machine"}
DEVICES = [file.removeprefix("env/").removesuffix(".env") for file in device_files()]
# Each device that has figures of its own.
WATCHED = sorted({path.parent.name for path in (COMPOSE / "monitoring").glob("*/panels.yaml")})


# Rendering takes the better part of a second, and most tests look at the same few.
_rendered: dict[tuple[Any, ...], dict[str, Any]] = {}


def services(rendered: Rendered, device: str, *files: str, **shell: str) -> dict[str, Any]:
    line = ":".join(f"compose/{name}.yaml" for name in ("base", "settings", device, *files))
    known = (line, *shell.items())
    if known not in _rendered:
        project = rendered(f"env/{device}.env", shell={"COMPOSE_FILE": line, **shell})
        _rendered[known] = project.config()["services"]
    return deepcopy(_rendered[known])


def mounted(service: dict[str, Any]) -> dict[str, str]:
    """What lies where: the files of this checkout, and of this machine, by where the container sees them."""
    return {mount["target"]: mount["source"] for mount in service["volumes"] if mount["type"] == "bind"}


@pytest.mark.parametrize("device", DEVICES)
def test_the_deployment_itself_is_the_same(rendered: Rendered, device: str) -> None:
    watched = services(rendered, device, "monitoring")
    plain = services(rendered, device)
    for found in (watched, plain):
        for service in found.values():  # the line of files is a setting, too
            service.get("environment", {}).pop("COMPOSE_FILE", None)
    assert {name: said for name, said in watched.items() if name not in WATCHERS} == plain
    assert set(watched) - set(plain) == WATCHERS


@pytest.mark.parametrize("files", [("monitoring",), ("monitoring", "monitoring-traces")])
def test_nothing_is_root_privileged_or_writable_where_it_need_not_be(
    rendered: Rendered, files: tuple[str, ...]
) -> None:
    found = services(rendered, "cpu", *files)
    added = {name: said for name, said in found.items() if name in {*WATCHERS, "collector"}}
    assert len(added) == len(WATCHERS) + len(files) - 1
    for name, service in added.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert service["pids_limit"] > 0, name
        assert int(service["mem_limit"]) > 0, name
        assert not service.keys() & {"privileged", "cap_add", "ipc", "pid", "network_mode", "devices"}, name
        assert str(service.get("user", "")).split(":")[0] not in {"0", "root"}, name
        assert all(mount.get("read_only") for mount in service.get("volumes", []) if mount["type"] == "bind"), name
        assert service["image"].rsplit(":", 1)[1] not in {"latest", "main"}, name


def test_the_pages_are_on_loopback_whatever_the_service_is_open_to(rendered: Rendered) -> None:
    keys = {"BIND_ADDR": "0.0.0.0", "BERTH_GRAFANA_PORT": "3001", "BERTH_PROMETHEUS_PORT": "9091"}
    found = services(rendered, "cpu", "monitoring", **keys)
    published = {
        name: [(port["host_ip"], port["published"]) for port in found[name].get("ports", [])] for name in WATCHERS
    }
    assert published == {"grafana": [("127.0.0.1", "3001")], "prometheus": [("127.0.0.1", "9091")], "machine": []}


@pytest.mark.parametrize(
    "files", [("monitoring",), ("monitoring", "monitoring-traces"), ("router", "monitoring", "monitoring-router")]
)
def test_every_file_that_is_mounted_is_there_and_may_be_read_by_any_user(
    rendered: Rendered, files: tuple[str, ...]
) -> None:
    found = services(rendered, "cpu", *files)
    for name in {*WATCHERS, "collector"} & found.keys():
        for source in mounted(found[name]).values() if "volumes" in found[name] else ():
            path = Path(source)
            assert path.exists(), source
            assert path.stat().st_mode & 0o004, source


@pytest.mark.parametrize("device", WATCHED)
def test_a_devices_figures_come_with_its_alerts_and_its_dashboard(rendered: Rendered, device: str) -> None:
    found = services(rendered, device, "monitoring", f"monitoring-{device}")
    folder = COMPOSE / "monitoring" / device
    asked = mounted(found["prometheus"])
    assert asked["/etc/prometheus/targets/accelerator.yaml"] == str(folder / "targets.yaml")
    assert asked["/etc/prometheus/rules/accelerator.yaml"] == str(folder / "rules.yaml")
    assert str(folder / "dashboard.json") in mounted(found["grafana"]).values()
    (target,) = yaml.safe_load((folder / "targets.yaml").read_text())[0]["targets"]
    host = target.split(":")[0]
    assert host in found or host in str(found["prometheus"]["extra_hosts"])


def test_prometheus_asks_in_the_way_the_service_speaks_and_with_the_key_it_was_given(rendered: Rendered) -> None:
    def lies(**shell: str) -> tuple[str, str]:
        asked = mounted(services(rendered, "cpu", "monitoring", **shell)["prometheus"])
        return Path(asked["/etc/prometheus/targets/llm.yaml"]).name, asked["/etc/prometheus/metrics_key"]

    assert lies() == ("llm-http.yaml", "/dev/null")
    assert lies(LLM_TLS_CERT_FILE="/etc/cert.pem", BERTH_METRICS_KEY_FILE="/etc/berth/metrics.key") == (
        "llm-https.yaml",
        "/etc/berth/metrics.key",
    )


def test_every_target_is_a_service_of_the_deployment(rendered: Rendered) -> None:
    found = services(rendered, "cpu", "router", "monitoring", "monitoring-router", "monitoring-traces")
    for target, source in mounted(found["prometheus"]).items():
        if target.startswith("/etc/prometheus/targets/"):
            for group in yaml.safe_load(Path(source).read_text()):
                assert {address.split(":")[0] for address in group["targets"]} <= found.keys(), source


def test_traces_of_both_go_to_the_collector_unless_somewhere_else_is_named(rendered: Rendered) -> None:
    found = services(rendered, "cpu", "monitoring", "monitoring-traces")
    assert found["llm"]["build"]["args"]["EXTRA"] == "otel"
    assert found["llm"]["image"] == "berth/llm-otel:0.1.0"
    assert found["llm"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert found["engine"]["environment"]["VLLM_OTLP_TRACES_ENDPOINT"] == "http://collector:4318/v1/traces"
    elsewhere = services(rendered, "cpu", "monitoring", "monitoring-traces", OTEL_TRACES_SAMPLER_ARG="1")
    assert elsewhere["llm"]["environment"]["OTEL_TRACES_SAMPLER_ARG"] == "1"


def test_spans_are_passed_on_where_a_store_is_named(rendered: Rendered) -> None:
    def configured(**shell: str) -> list[str]:
        command: list[str] = services(rendered, "cpu", "monitoring", "monitoring-traces", **shell)["collector"][
            "command"
        ]
        return [Path(word).name for word in command]

    assert configured() == ["collector.yaml", "collector.yaml"]
    assert configured(BERTH_TRACES_ENDPOINT="http://tempo:4318") == ["collector.yaml", "collector-forward.yaml"]
