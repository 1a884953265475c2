"""The job that quantizes, with a stand-in for Apptainer that says how it was called."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.job_script import APPTAINER, bash

STAND_IN = r"""#!/usr/bin/env bash
case $1 in
--version) echo apptainer version 1.4.5 ;;
inspect) ;;
*) case "$*" in
    *engine.quantize.*)
        printf '%s\n' "$@" >"$SAID/argv"
        env | grep ^APPTAINERENV_ >"$SAID/environ"
        exit "${CODE:-0}"
        ;;
    esac ;;
esac
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A node with the stand-in, a store with images, and what a job needs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "apptainer").write_text(STAND_IN)
    (tmp_path / "bin" / "apptainer").chmod(0o755)
    (tmp_path / "berth" / "sif").mkdir(parents=True)
    for image in ("quantize-cpu", "vllm-hpu"):
        (tmp_path / "berth" / "sif" / f"{image}.sif").touch()
    (tmp_path / "samples.jsonl").write_text('{"text": "Once"}\n')
    (tmp_path / "cpu.env").write_text("LLM_DEVICE=cpu\nLLM_VLLM_MODEL_NAME=Qwen/Qwen3-8B\nHF_TOKEN=hf_secret\n")
    (tmp_path / "hpu.env").write_text("LLM_DEVICE=hpu\nLLM_VLLM_MODEL_NAME=Qwen/Qwen3-8B\nVLLM_TP_SIZE=1\n")
    (tmp_path / "accel").mkdir()
    (tmp_path / "accel" / "accel0").touch()
    return tmp_path


def run(job: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    usual = {"PATH": f"{job / 'bin'}:{os.environ['PATH']}", "SCRATCH": str(job), "SAID": str(job), "HPU_DEV": str(job)}
    return subprocess.run(
        ["bash", APPTAINER / "quantize.sbatch", *words],
        env={**usual, "HOME": str(job), "SLURM_JOB_ID": "7", **environ},
        cwd=APPTAINER.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


def said(job: Path) -> list[str]:
    return (job / "argv").read_text().splitlines()


def test_llm_compressor_runs_in_its_image_and_sees_what_it_reads_and_writes(job: Path) -> None:
    words = [f"--to={job}/models/small", f"--data={job}/samples.jsonl", "--samples=8", str(job / "cpu.env")]
    done = run(job, "--scheme=w8a8", *words)
    assert done.returncode == 0, done.stderr
    argv = said(job)
    assert str(job / "berth/sif/quantize-cpu.sif") in argv
    assert f"{job}/models:{job}/models" in argv
    assert f"{job}/samples.jsonl:{job}/samples.jsonl:ro" in argv
    program = argv[argv.index("engine.quantize.compress") + 1 :]
    told = ["--scheme", "w8a8", "--to", f"{job}/models/small", "--samples", "8", "--length", "2048"]
    assert program == ["Qwen/Qwen3-8B", *told, "--data", f"{job}/samples.jsonl"]


def test_the_token_reaches_the_program_and_no_argument_list(job: Path) -> None:
    run(job, "--scheme=fp8-dynamic", f"--to={job}/m", str(job / "cpu.env"))
    assert "APPTAINERENV_HF_TOKEN=hf_secret" in (job / "environ").read_text()
    assert "hf_secret" not in json.dumps(said(job))


def test_gaudi_is_calibrated_in_the_image_that_serves_at_the_place_that_serves(job: Path) -> None:
    done = run(job, "--scheme=fp8-inc", f"--data={job}/samples.jsonl", str(job / "hpu.env"))
    assert done.returncode == 0, done.stderr
    argv = said(job)
    assert str(job / "berth/sif/vllm-hpu.sif") in argv
    assert f"{job}/berth/models:/cache/huggingface" in argv
    assert argv[argv.index("engine.quantize.calibrate") + 1] == f"--data={job}/samples.jsonl"
    assert "APPTAINERENV_HF_HOME=/cache/huggingface" in (job / "environ").read_text()


def test_the_programs_exit_code_is_the_jobs(job: Path) -> None:
    assert run(job, "--scheme=fp8-dynamic", f"--to={job}/m", str(job / "cpu.env"), CODE="3").returncode == 3


@pytest.mark.parametrize(
    ("words", "complaint", "code"),
    [
        (["--scheme=w8a8", "--to=/tmp/x/y"], "needs a calibration set", 64),
        (["--scheme=fp8-dynamic"], "--to is missing", 64),
        (["--scheme=w8a8", "--to=/tmp/x/y", "--data=/no/such.jsonl"], "/no/such.jsonl cannot be read", 64),
    ],
)
def test_what_is_missing_ends_the_job_with_a_sentence(job: Path, words: list[str], complaint: str, code: int) -> None:
    done = run(job, *words, str(job / "cpu.env"))
    assert done.returncode == code
    assert complaint in done.stderr


def test_serving_sees_the_folder_of_a_calibration_that_is_named_not_its_file_alone(tmp_path: Path) -> None:
    config = tmp_path / "inc" / "llama" / "maxabs_quant_g2.json"
    config.parent.mkdir(parents=True)
    config.touch()
    program = f"declare -A settings=([QUANT_CONFIG]={config}); model_paths"
    assert bash(program, parts=["lib/messages", "lib/models"]).stdout.split() == [str(config.parent)]
