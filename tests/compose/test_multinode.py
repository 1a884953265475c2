"""compose/multinode.yaml: every device's engine on the host's network, as the node that env/node.env says it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import names
from tests.support.compose import ROOT, Project, device_files

Rendered = Callable[..., Project]
TWO = {"BERTH_NODES": "2", "BERTH_HEAD_ADDRESS": "10.0.0.1", "COMPOSE_PROFILES": "rank-0"}


def files(device: str) -> str:
    return ":".join(f"compose/{name}.yaml" for name in ("base", "settings", device, "multinode"))


def services(rendered: Rendered, device: str, rank: str, **shell: str) -> dict[str, Any]:
    given = {"COMPOSE_FILE": files(device), **TWO, "BERTH_NODE_RANK": rank, **shell}
    found: dict[str, Any] = rendered(f"env/{device}.env", shell=given).config()["services"]
    return found


@pytest.fixture(params=[file.removeprefix("env/").removesuffix(".env") for file in device_files()])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_node_is_told_its_rank_and_its_head_and_opens_no_port_for_requests(rendered: Rendered, device: str) -> None:
    for rank in ("0", "1"):
        engine = services(rendered, device, rank)["engine"]
        told = engine["environment"]
        assert (told["VLLM_NNODES"], told["VLLM_NODE_RANK"], told["VLLM_MASTER_ADDR"]) == ("2", rank, "10.0.0.1")
        assert (told[names.HOST], told[names.PORT]) == ("", "")
        assert told["VLLM_UDS"] == "/run/berth/engine.sock"
        assert engine["network_mode"] == "host"
        assert not engine.get("ports")


def test_all_else_about_the_engine_is_as_on_one_host(rendered: Rendered, device: str) -> None:
    alone: dict[str, Any] = rendered(f"env/{device}.env").config()["services"]["engine"]
    node = services(rendered, device, "1")["engine"]
    for name in ("ports", "networks", "network_mode", "environment"):
        alone.pop(name, None)
        node.pop(name, None)
    assert node == alone


def test_the_service_stands_beside_the_head_alone_and_asks_through_the_socket(rendered: Rendered) -> None:
    head, follower = (services(rendered, "cpu", rank) for rank in ("0", "1"))
    assert set(follower) == {"engine", "prepare"}
    assert head["llm"]["environment"]["LLM_VLLM_ENDPOINT"] == "unix:///run/berth/engine.sock"
    assert "network_mode" not in head["llm"]
    assert head["llm"]["ports"][0]["host_ip"] == "127.0.0.1"


def test_one_interface_is_named_for_both_libraries_and_each_of_their_own_names_wins(rendered: Rendered) -> None:
    told = services(rendered, "cuda", "0", BERTH_INTERFACE="ib0", NCCL_SOCKET_IFNAME="=ib0,ib1")["engine"]
    assert told["environment"]["GLOO_SOCKET_IFNAME"] == "ib0"
    assert told["environment"]["NCCL_SOCKET_IFNAME"] == "=ib0,ib1"


@pytest.mark.parametrize("missing", ["BERTH_NODES", "BERTH_NODE_RANK", "BERTH_HEAD_ADDRESS"])
def test_what_a_node_must_know_is_asked_for(rendered: Rendered, missing: str) -> None:
    shell = {"COMPOSE_FILE": files("cpu"), **TWO, "BERTH_NODE_RANK": "0", missing: ""}
    done = rendered("env/cpu.env", shell=shell).run("config", check=False)
    assert done.returncode != 0
    assert missing in done.stderr
    assert "env/node.env.example" in done.stderr


def test_the_example_is_the_file_that_it_says_and_git_ignores_the_copy(rendered: Rendered, tmp_path: Path) -> None:
    example = ROOT / "env" / "node.env.example"
    copy = tmp_path / "node.env"
    copy.write_text(example.read_text())
    found = rendered("env/cuda.env", str(copy)).config()["services"]
    assert found["engine"]["environment"]["VLLM_MASTER_ADDR"] == "192.0.2.10"
    assert set(found) == {"engine", "llm", "prepare"}
    assert "env/node.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_ray_is_an_overlay_of_its_own_with_an_image_that_has_it(rendered: Rendered, device: str) -> None:
    found = services(rendered, device, "0", COMPOSE_FILE=f"{files(device)}:compose/multinode-ray.yaml")
    engine, without = found["engine"], services(rendered, device, "0")["engine"]
    assert engine["image"] == f"berth/vllm-{device}-ray:0.1.0"
    assert engine["build"]["dockerfile"] == "apptainer/ray.Dockerfile"
    assert engine["build"]["args"]["ENGINE_IMAGE"] == without["image"]
    assert engine["entrypoint"][-1] == "engine.ray_cluster"
    assert found["prepare"]["image"] == without["image"]
    assert engine["environment"].pop("VLLM_MASTER_PORT") == "6379"
    without["environment"].pop("VLLM_MASTER_PORT", None)
    for name in ("image", "build", "entrypoint"):
        engine.pop(name)
        without.pop(name)
    engine["environment"].pop("COMPOSE_FILE")
    without["environment"].pop("COMPOSE_FILE")
    assert engine == without
