"""A quantized model that this machine cannot serve is refused before it loads."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine import host
from engine.decisions import Situation
from engine.devices import cpu
from engine.model import ModelFiles

FOUR = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}}}
EIGHT = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}}


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An x86-64 machine whose /proc is in a folder."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    has = host.has_avx512
    monkeypatch.setattr(host, "has_avx512", lambda: has(tmp_path))
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("processor : 0\nflags\t\t: fpu sse2 avx2\nbugs :\n")
    return tmp_path / "proc" / "cpuinfo"


def model(folder: Path, said: Any) -> ModelFiles:
    (folder / "config.json").write_text(json.dumps({"quantization_config": said}))
    return ModelFiles(folder)


def refused(folder: Path) -> list[str]:
    problems = cpu.preflight(Situation({}, {}, str(folder)))
    return [problem.sentence for problem in problems if "4 bits" in problem.sentence]


def test_4_bits_are_refused_on_a_processor_without_avx_512(processor: Path, tmp_path: Path) -> None:
    model(tmp_path, FOUR)
    assert refused(tmp_path)
    processor.write_text("flags : fpu avx2 avx512f avx512bw avx512dq avx512vl\n")
    assert not refused(tmp_path)


def test_8_bits_and_models_that_are_not_quantized_are_served(processor: Path, tmp_path: Path) -> None:
    for said in (EIGHT, {"quant_method": "fp8"}, None):
        model(tmp_path, said)
        assert not refused(tmp_path)


@pytest.mark.parametrize(
    ("said", "bits"),
    [
        (FOUR, 4),
        ({"quant_method": "gptq", "bits": 4}, 4),
        ({"quant_method": "awq", "bits": 4, "config_groups": None}, 4),
        (EIGHT, 8),
        ({"config_groups": {"group_0": None, "group_1": {"weights": None}}}, None),
        ({"config_groups": [], "bits": "4"}, None),
        ("fp8", None),
        (None, None),
    ],
)
def test_the_bits_of_a_weight_are_read_whatever_made_it(tmp_path: Path, said: Any, bits: int | None) -> None:
    assert model(tmp_path, said).weight_bits() == bits
