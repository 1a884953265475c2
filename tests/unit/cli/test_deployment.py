"""Which device, which files in which order, and what they add up to."""

from pathlib import Path

import pytest

from berth import deployment as deployments
from berth.errors import BerthError
from engine import devices
from engine.devices import Detection
from tests.unit.cli.conftest import Resolve


def names(deployment: deployments.Deployment) -> list[str]:
    return [str(file.relative_to(deployment.root)) for file in deployment.files]


def test_without_files_the_device_is_the_one_found_here(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "detect", lambda: {"hpu": Detection(8, "8 cards"), "cpu": Detection(1, "always")})
    found = resolve()
    assert (found.device, found.why_device, names(found)) == ("hpu", "8 cards", ["env/hpu.env"])


@pytest.mark.parametrize(
    ("files", "device", "shell", "expected"),
    [
        (["env/hpu.env"], None, {}, "hpu"),
        (["env/models/demo.env"], "hpu", {}, "hpu"),
        (["mine.env"], None, {}, "hpu"),
        ([], None, {"LLM_DEVICE": "hpu"}, "hpu"),
        (["env/cpu.env"], "cpu", {}, "cpu"),
    ],
)
def test_the_device_is_the_one_asked_for(
    resolve: Resolve, root: Path, files: list[str], device: str | None, shell: dict[str, str], expected: str
) -> None:
    (root / "mine.env").write_text("LLM_DEVICE=hpu\n")
    assert resolve(*files, device=device, shell=shell).device == expected


def test_layers_are_device_then_given_then_local_then_shell(resolve: Resolve, root: Path) -> None:
    (root / "mine.env").write_text("A=mine\nB=mine\nC=mine\nLLM_DEVICE=cpu\n")
    (root / "env/local.env").write_text("B=local\nC=local\n")
    found = resolve("mine.env", shell={"C": "shell", "D": "shell"})
    assert names(found) == ["env/cpu.env", "mine.env", "env/local.env"]
    assert [found.value(name) for name in "ABCD"] == ["mine", "local", "shell", "shell"]
    assert found.settings["B"].source.endswith("local.env:1")
    assert "D" not in found.settings


def test_a_device_that_does_not_exist_is_named_with_those_that_do(resolve: Resolve) -> None:
    with pytest.raises(BerthError, match="gpu: no such device") as caught:
        resolve(device="gpu")
    assert "cpu, cuda, hpu" in caught.value.problems[0].hint
    assert caught.value.exit_code == 2


def test_two_devices_at_once_are_refused(resolve: Resolve) -> None:
    with pytest.raises(BerthError, match="for different devices"):
        resolve("env/cpu.env", "env/hpu.env")


def test_a_missing_file_is_refused(resolve: Resolve) -> None:
    with pytest.raises(BerthError, match=r"nowhere\.env: no such file"):
        resolve("nowhere.env", device="cpu")


def test_the_model_counts_as_named_by_the_user_unless_it_stands_in_the_devices_file(resolve: Resolve) -> None:
    assert not resolve("env/cpu.env").model_named_by_user
    assert resolve("env/cpu.env", "env/models/demo.env").model_named_by_user
    assert resolve("env/cpu.env", shell={"LLM_VLLM_MODEL_NAME": "x"}).model_named_by_user


def test_falling_back_to_the_demo_model_keeps_what_else_the_user_said(resolve: Resolve, root: Path) -> None:
    (root / "env/local.env").write_text("VLLM_MAX_NUM_SEQS=4\n")
    found = resolve("env/cpu.env").with_demo_model()
    assert names(found) == ["env/cpu.env", "env/models/demo.env", "env/local.env"]
    assert (found.model, found.value("VLLM_MAX_NUM_SEQS"), found.value("VLLM_MAX_MODEL_LEN")) == ("demo", "4", "")


def test_a_bad_setting_is_named_by_file_and_line(resolve: Resolve, root: Path) -> None:
    (root / "env/local.env").write_text("\nVLLM_MAX_NUM_SEQ=4\n")
    with pytest.raises(BerthError) as caught:
        deployments.check_settings(resolve("env/cpu.env"))
    (problem,) = caught.value.problems
    assert "local.env:2: VLLM_MAX_NUM_SEQ: no such setting" in problem.sentence
    assert problem.hint == "did you mean VLLM_MAX_NUM_SEQS?"


def test_a_bad_setting_of_the_shell_has_no_line(resolve: Resolve) -> None:
    with pytest.raises(BerthError, match=r"^VLLM_MAX_NUM_SEQ: no such setting"):
        deployments.check_settings(resolve("env/cpu.env", shell={"VLLM_MAX_NUM_SEQ": "4"}))


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "80 80", "\uff18\uff10"])
def test_a_port_that_is_none_is_bad_usage(resolve: Resolve, port: str) -> None:
    with pytest.raises(BerthError, match="not a port") as caught:
        _ = resolve("env/cpu.env", shell={"LLM_USVC_PORT": port}).service_port
    assert caught.value.exit_code == 2


def test_empty_means_unset(resolve: Resolve) -> None:
    found = resolve("env/cpu.env", shell={"LLM_USVC_PORT": "", "BIND_ADDR": ""})
    assert (found.service_port, found.address) == (9000, "127.0.0.1")
