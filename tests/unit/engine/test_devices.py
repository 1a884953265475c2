"""Every device offers the same, and GPUs are counted as a container sees them."""

from pathlib import Path

import pytest

from engine import devices
from engine.decisions import Situation
from engine.devices import cuda

DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}.65.06  Release Build\nGCC version: 12\n"


@pytest.mark.parametrize("name", devices.names())
def test_a_device_offers_what_the_launcher_asks_of_it(name: str) -> None:
    module = devices.load(name)
    wanted = [member for member in vars(devices.Device) if not member.startswith("_")]
    wanted += devices.Device.__annotations__
    assert len(wanted) > 8
    assert [member for member in wanted if not hasattr(module, member)] == []


def test_an_unknown_device_has_no_module() -> None:
    with pytest.raises(ModuleNotFoundError):
        devices.load("abacus")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with two GPUs and a driver."""
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    (tmp_path / "version").write_text(DRIVER.format(580), encoding="utf-8")
    monkeypatch.setattr(cuda, "_NODES", tmp_path)
    monkeypatch.setattr(cuda, "_DRIVER_VERSION", tmp_path / "version")
    return tmp_path


def test_gpus_are_counted_and_cut_down_to_those_that_are_visible(machine: Path) -> None:
    assert cuda.visible_devices({}) == 2
    assert cuda.visible_devices({"CUDA_VISIBLE_DEVICES": "1"}) == 1
    assert not cuda.preflight(Situation({}, {}, None))


def test_no_gpu_names_the_way_to_one(machine: Path) -> None:
    for node in machine.glob("nvidia?"):
        node.unlink()
    (problem,) = cuda.preflight(Situation({}, {}, None))
    assert "no NVIDIA GPU" in problem.sentence
    assert "--gpus all" in problem.hint
    assert cuda.visible_devices({}) is None


def test_a_gpu_of_windows_counts_but_not_how_many(machine: Path) -> None:
    for node in machine.glob("nvidia?"):
        node.unlink()
    (machine / "dxg").touch()
    assert cuda.detect() is not None
    assert cuda.visible_devices({}) is None


def test_a_driver_too_old_for_the_image_is_refused(machine: Path) -> None:
    (machine / "version").write_text(DRIVER.format(550), encoding="utf-8")
    (problem,) = cuda.preflight(Situation({}, {}, None))
    assert "branch 550" in problem.sentence
    assert not cuda.preflight(Situation({"VLLM_ENABLE_CUDA_COMPATIBILITY": "1"}, {}, None))
