"""FP8 on Gaudi: two flags and the file that calibration wrote; never that file without FP8."""

from pathlib import Path

import pytest

from engine.decisions import Situation
from engine.devices import hpu


def test_fp8_adds_its_two_flags_and_the_calibrations_file() -> None:
    decisions = hpu.tune(Situation({"IF_FP8_QUANTIZATION": "true"}, {}, "meta-llama/Llama-3.1-8B-Instruct"))
    words = [word for decision in decisions for word in decision.args]
    assert words == ["--quantization", "inc", "--kv-cache-dtype", "fp8_inc"]
    changed = {name: value for decision in decisions for name, value in decision.environ.items()}
    assert changed["QUANT_CONFIG"] == "/data/inc/llama-3.1-8b-instruct/maxabs_quant_g2.json"


@pytest.mark.parametrize("generation", ["g2", "g3"])
def test_the_file_of_the_generation_that_was_calibrated_is_found(tmp_path: Path, generation: str) -> None:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / f"maxabs_quant_{generation}.json").touch()
    assert hpu.quant_config(Situation({}, {}, "/models/Llama/"), tmp_path).name == f"maxabs_quant_{generation}.json"


def test_a_quant_config_without_fp8_is_removed() -> None:
    decisions = hpu.tune(Situation({"QUANT_CONFIG": "/data/x.json"}, {}, "m"))
    assert {"QUANT_CONFIG": None} in [dict(decision.environ) for decision in decisions]


def test_fp8_without_its_file_is_refused() -> None:
    problems = hpu.preflight(Situation({"IF_FP8_QUANTIZATION": "true", "QUANT_CONFIG": "/nowhere.json"}, {}, "m"))
    assert any("/nowhere.json is not there" in problem.sentence for problem in problems)
