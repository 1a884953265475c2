"""FP8 on Gaudi: two flags and the file that calibration wrote; never that file without FP8, nor one of no use."""

import json
from pathlib import Path

import pytest

from engine.decisions import Situation
from engine.devices import hpu
from engine.quantize import gaudi


def calibrated(folder: Path, generation: str = "g2", **said: object) -> Path:
    """What a finished calibration leaves, as far as serving looks at it."""
    prefix = folder / generation / "inc_output"
    prefix.parent.mkdir(parents=True)
    prefix.with_name("inc_output_hooks_maxabs_0_1.npz").touch()
    path = folder / f"maxabs_quant_{generation}.json"
    path.write_text(
        json.dumps({"mode": "QUANTIZE", "scale_method": "maxabs_hw", "dump_stats_path": str(prefix), **said})
    )
    return path


def test_fp8_adds_its_two_flags_and_the_calibrations_file() -> None:
    environ = {"IF_FP8_QUANTIZATION": "true", "HF_HOME": "/cache/huggingface"}
    decisions = hpu.tune(Situation(environ, {}, "meta-llama/Llama-3.1-8B-Instruct"))
    words = [word for decision in decisions for word in decision.args]
    assert words == ["--quantization", "inc", "--kv-cache-dtype", "fp8_inc"]
    changed = {name: value for decision in decisions for name, value in decision.environ.items()}
    assert changed["QUANT_CONFIG"] == "/cache/huggingface/inc/llama-3.1-8b-instruct/maxabs_quant_g2.json"


@pytest.mark.parametrize("generation", ["g2", "g3"])
def test_the_file_of_the_generation_that_was_calibrated_is_found(tmp_path: Path, generation: str) -> None:
    written = calibrated(tmp_path / "inc" / "llama", generation)
    assert hpu.quant_config(Situation({"HF_HOME": str(tmp_path)}, {}, "/models/Llama/")) == written


def test_a_quant_config_without_fp8_is_removed() -> None:
    decisions = hpu.tune(Situation({"QUANT_CONFIG": "/data/x.json"}, {}, "m"))
    assert {"QUANT_CONFIG": None} in [dict(decision.environ) for decision in decisions]


def test_fp8_without_its_file_is_refused() -> None:
    problems = hpu.preflight(Situation({"IF_FP8_QUANTIZATION": "true", "QUANT_CONFIG": "/nowhere.json"}, {}, "m"))
    assert any("/nowhere.json is not there" in problem.sentence for problem in problems)


def test_a_finished_calibration_is_served_from(tmp_path: Path) -> None:
    assert gaudi.problem(calibrated(tmp_path), "g2", 1) is None


def test_a_calibration_for_the_other_generation_is_refused(tmp_path: Path) -> None:
    path = calibrated(tmp_path, "g2")
    problem = gaudi.problem(path, "g3", 1)
    assert problem
    assert "another generation" in problem.sentence
    missing = gaudi.problem(path.with_name("maxabs_quant_g3.json"), "g3", 1)
    assert missing
    assert "maxabs_quant_g2.json is for another card" in missing.sentence


def test_a_calibration_that_was_ended_early_is_refused_though_its_file_is_there(tmp_path: Path) -> None:
    path = calibrated(tmp_path)
    (tmp_path / gaudi.BEGUN).touch()
    problem = gaudi.problem(path, "g2", 1)
    assert problem
    assert "not finished" in problem.sentence


def test_measurements_that_are_mounted_elsewhere_are_missed_before_the_model_loads(tmp_path: Path) -> None:
    problem = gaudi.problem(calibrated(tmp_path, dump_stats_path="/elsewhere/g2/inc_output"), "g2", 1)
    assert problem
    assert "/elsewhere/g2/inc_output" in problem.sentence
    assert "same path" in problem.hint


@pytest.mark.parametrize(
    "said", [{"dynamic_quantization": True, "dump_stats_path": ""}, {"scale_method": "unit_scale"}]
)
def test_ways_that_measure_nothing_need_no_measurements(tmp_path: Path, said: dict[str, object]) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"mode": "QUANTIZE", **said}))
    assert gaudi.problem(path, "g2", 1) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"mode": "MEASURE"}'])
def test_a_file_that_is_none_to_quantize_by_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    assert gaudi.problem(path, None, 1)


def test_another_number_of_cards_than_was_calibrated_on_is_refused(tmp_path: Path) -> None:
    path = calibrated(tmp_path)
    (tmp_path / gaudi.RECORD).write_text('{"tensor_parallel": 2}')
    problem = gaudi.problem(path, "g2", 4)
    assert problem
    assert "VLLM_TP_SIZE=2" in problem.hint
    assert gaudi.problem(path, "g2", 2) is None
