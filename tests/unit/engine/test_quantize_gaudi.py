"""Calibration on Gaudi with a stand-in for the plugin's scripts, which checks its arguments and leaves what they do."""

import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import pytest

from engine.quantize import gaudi, measure
from engine.quantize.samples import Refused
from tests.support.engine_python import ROOT

# As calibrate_model.sh of vllm-gaudi 0.26: the quantizing file first, then what it measured.
SCRIPT = r"""
set -e
cd "$(dirname "$0")"
while getopts "m:d:o:b:t:l:" option; do
    case $option in m) model=$OPTARG ;; d) data=$OPTARG ;; o) out=$OPTARG ;; b | t | l) : ;; *) exit 1 ;; esac
done
echo "$*" >>"$CALLS"
case $PWD in *vllm-gaudi/calibration) ;; *) echo "in $PWD" && exit 1 ;; esac
case $data in *.pkl) [ -r "$data" ] ;; *) exit 1 ;; esac
touch inc_tmp
name=$(basename "$model" | tr '[:upper:]' '[:lower:]')
mkdir -p "$out/$name/g2"
printf '{"mode": "QUANTIZE", "dump_stats_path": "%s"}' "$out/$name/g2/inc_output" >"$out/$name/maxabs_quant_g2.json"
[ -z "${DIE:-}" ] || exit 3
touch "$out/$name/g2/inc_output_hooks_maxabs_0_1.npz"
"""
MODEL = "meta-llama/Llama-3.1-8B"


class Table:
    """Stands in for pandas' table: the scripts' own test is the real one."""

    def __init__(self, rows: list[tuple[str, str]], columns: list[str]) -> None:
        assert columns == ["system_prompt", "question"]
        self.rows = rows

    def to_pickle(self, path: Path) -> None:
        path.write_bytes(pickle.dumps(self.rows))


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The image's folder, which nobody can write to."""
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "calibrate_model.sh").write_text(SCRIPT)
    folder.chmod(0o555)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = Table  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "samples.jsonl"
    file.write_text('{"question": "Hi"}\n{"text": "Once"}\n')
    return file


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "inc" / "llama-3.1-8b"


def run(to: Path, data: Path, scripts: Path, cards: int = 2) -> Path:
    return measure.measure(MODEL, to, data, cards, 512, 8, scripts)


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def test_the_scripts_get_absolute_paths_the_cards_and_the_batch_size(
    tmp_path: Path, to: Path, data: Path, scripts: Path
) -> None:
    found = run(to, data, scripts)
    assert found == to / "maxabs_quant_g2.json"
    (call,) = calls(tmp_path)
    words = call.split()
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options | {"-d": ""} == {"-m": MODEL, "-d": "", "-o": str(to.parent), "-b": "8", "-t": "2"}
    assert gaudi.problem(found, "g2", 2) is None
    assert sorted(path.name for path in scripts.iterdir()) == ["calibrate_model.sh"], "it runs from a copy"


def test_the_same_calibration_again_does_nothing_and_another_begins_anew(
    tmp_path: Path, to: Path, data: Path, scripts: Path
) -> None:
    run(to, data, scripts)
    (to / "g2" / "left-behind").touch()
    run(to, data, scripts)
    assert len(calls(tmp_path)) == 1
    run(to, data, scripts, cards=4)
    assert len(calls(tmp_path)) == 2
    assert not (to / "g2" / "left-behind").exists()


def test_a_script_that_dies_leaves_nothing_that_would_be_served_and_is_run_again(
    to: Path, data: Path, scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIE", "yes")
    with pytest.raises(Refused, match="ended with 3"):
        run(to, data, scripts)
    problem = gaudi.problem(to / "maxabs_quant_g2.json", "g2", 2)
    assert problem
    assert "not finished" in problem.sentence
    monkeypatch.delenv("DIE")
    assert gaudi.problem(run(to, data, scripts), "g2", 2) is None


def test_a_pickle_goes_to_the_scripts_as_it_is_with_the_number_of_samples(
    tmp_path: Path, to: Path, scripts: Path
) -> None:
    data = tmp_path / "no-suffix"
    data.write_bytes(pickle.dumps([1]))
    run(to, data, scripts)
    assert calls(tmp_path)[0].endswith("-l 512")


def test_what_the_scripts_cannot_take_is_refused_before_they_run(tmp_path: Path, data: Path, scripts: Path) -> None:
    with pytest.raises(Refused, match="blank"):
        measure.measure("/models/my model", tmp_path / "my model", data, 1, 1, 1, scripts)
    with pytest.raises(Refused, match="not in") as caught:
        measure.measure(MODEL, tmp_path / "llama-3.1-8b", data, 1, 1, 1, tmp_path)
    assert caught.value.problem.exit_code == 3


def calibrate(data: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": "/root", "LLM_VLLM_MODEL_NAME": "Qwen/Qwen3-8B", **settings}
    command = [sys.executable, "-P", "-m", "engine.quantize.calibrate", f"--data={data}", *words]
    environ["PYTHONPATH"] = str(ROOT)
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_off_gaudi_it_is_refused_with_what_to_use_instead(data: Path) -> None:
    done = calibrate(data, LLM_DEVICE="cuda")
    assert done.returncode == 2
    assert "is for Gaudi, and this is cuda" in done.stderr
    assert "fp8-dynamic" in done.stderr


def test_the_settings_that_serve_also_calibrate(data: Path) -> None:
    settings = {
        "LLM_DEVICE": "hpu",
        "VLLM_TP_SIZE": "2",
        "HF_HOME": "/cache/huggingface",
        "IF_FP8_QUANTIZATION": "true",
    }
    done = calibrate(data, "--samples=7", "--dry-run", **settings)
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    at = words.index("engine.quantize.measure")
    told = ["--cards", "2", "--data", str(data), "--samples", "7", "--batch", "32"]
    assert words[at + 1 :] == ["Qwen/Qwen3-8B", "--to", "/cache/huggingface/inc/qwen3-8b", *told]


def test_without_a_card_nothing_is_measured(data: Path) -> None:
    done = calibrate(data, LLM_DEVICE="hpu")
    assert done.returncode == 3
    assert "no Gaudi card" in done.stderr


def test_a_pickle_is_read_on_the_users_word_alone_and_said_aloud(tmp_path: Path) -> None:
    data = tmp_path / "set.pkl"
    data.write_bytes(pickle.dumps([1]))
    refused = calibrate(data, "--dry-run", LLM_DEVICE="hpu")
    assert refused.returncode == 2
    assert "FP8_TRUST_PICKLE=true" in refused.stderr
    trusted = calibrate(data, "--dry-run", "--trust-pickle=true", LLM_DEVICE="hpu")
    assert trusted.returncode == 0, trusted.stderr
    assert "any code" in trusted.stderr
