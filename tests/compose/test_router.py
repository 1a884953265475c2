"""compose/router.yaml: a second engine that is like the first one, and vLLM's router before both, for every device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import Project, device_files

Rendered = Callable[..., Project]


def files(device: str) -> str:
    return ":".join(f"compose/{name}.yaml" for name in ("base", "settings", device, "router"))


def services(rendered: Rendered, device: str, *more: str, **shell: str) -> dict[str, Any]:
    given = {"COMPOSE_FILE": files(device), **shell}
    found: dict[str, Any] = rendered(f"env/{device}.env", *more, shell=given).config()["services"]
    return found


@pytest.mark.parametrize("device", [file.removeprefix("env/").removesuffix(".env") for file in device_files()])
def test_both_engines_are_alike_but_for_the_port_and_the_file_of_the_start(rendered: Rendered, device: str) -> None:
    found = services(rendered, device, VLLM_MAX_NUM_SEQS="7")
    one, two = found["engine"], found["engine-2"]
    assert two["environment"]["VLLM_MAX_NUM_SEQS"] == "7"
    assert "ports" not in two
    assert two["environment"].pop("LLM_PHASE_FILE") == ""
    one["environment"].pop("LLM_PHASE_FILE")
    assert {name: value for name, value in one.items() if name != "ports"} == two


def test_the_service_asks_the_router_which_knows_both_and_is_open_to_nobody_else(rendered: Rendered) -> None:
    found = services(rendered, "cpu", VLLM_API_KEY="sesame")
    router, service = found["router"], found["llm"]
    assert service["environment"]["LLM_VLLM_ENDPOINT"] == "http://router:8008"
    assert router["command"][-3:] == ["--worker-urls", "http://engine:8008", "http://engine-2:8008"]
    assert "ports" not in router
    assert router["cap_drop"] == ["ALL"]
    assert router["security_opt"] == ["no-new-privileges:true"]
    assert router["read_only"] is True
    assert "sesame" not in str(router)


def test_a_file_of_ones_own_gives_each_engine_cards_of_its_own(rendered: Rendered, tmp_path: Path) -> None:
    """In the ways that docs/compose.md shows."""
    own = tmp_path / "cards.yaml"
    own.write_text(
        "services:\n"
        "  engine: {environment: {HABANA_VISIBLE_DEVICES: '0,1'}}\n"
        "  engine-2: {environment: {HABANA_VISIBLE_DEVICES: '2,3'}}\n"
    )
    found = services(rendered, "hpu", COMPOSE_FILE=f"{files('hpu')}:{own}")
    cards = [found[name]["environment"]["HABANA_VISIBLE_DEVICES"] for name in ("engine", "engine-2")]
    assert cards == ["0,1", "2,3"]
    device = "!override [{driver: nvidia, device_ids: ['%s'], capabilities: [gpu]}]"
    one, two = (f"{{deploy: {{resources: {{reservations: {{devices: {device % number}}}}}}}}}" for number in "01")
    own.write_text(f"services:\n  engine: {one}\n  engine-2: {two}\n")
    found = services(rendered, "cuda", COMPOSE_FILE=f"{files('cuda')}:{own}")
    requests = [found[name]["deploy"]["resources"]["reservations"]["devices"] for name in ("engine", "engine-2")]
    assert [[one["device_ids"] for one in devices] for devices in requests] == [[["0"]], [["1"]]]
