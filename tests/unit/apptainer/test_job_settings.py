"""What a job is told: env files, site files, its own header and options."""

import os
import subprocess
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berth import deployment
from tests.support.job_script import APPTAINER, bash

relaxed = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


SETTINGS = """
job_dir=$1 deployment=$2 checkout=/elsewhere env_files=("${@:3}")
read_settings
for name in "${!settings[@]}"; do printf '%s=%s\\n' "$name" "${settings[$name]}"; done
"""


def read_settings(tmp_path: Path, *files: Path, **environ: str) -> dict[str, str]:
    parts = ["lib/messages", "lib/envfile", "lib/settings"]
    done = bash(SETTINGS, APPTAINER, tmp_path, *files, parts=parts, environ=environ)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_later_files_win_and_the_shell_wins_for_names_that_they_set(tmp_path: Path) -> None:
    one, two = tmp_path / "one.env", tmp_path / "two.env"
    one.write_text("LLM_DEVICE=cpu\nLLM_VLLM_MODEL_NAME=demo\nA=1\nB=1\nC=1\n")
    # Names that the script itself uses are no different from others.
    two.write_text("B=2\nC=2\njob_dir=x\nname=y\nfile=z\n_env_into=v\n")
    found = read_settings(tmp_path, one, two, C="3", D="3")
    usual = {"LLM_DEVICE": "cpu", "LLM_VLLM_MODEL_NAME": "demo"}
    assert found == {**usual, "A": "1", "B": "2", "C": "3", "job_dir": "x", "name": "y", "file": "z", "_env_into": "v"}


def test_what_berth_merged_is_literal_and_the_shell_has_had_its_say(tmp_path: Path) -> None:
    merged = tmp_path / "job.env"
    merged.write_text("LLM_DEVICE=cpu\nLLM_VLLM_MODEL_NAME=demo\nA='$x' # y\nB=1\n")
    found = read_settings(tmp_path, merged, B="3")
    assert found == {"LLM_DEVICE": "cpu", "LLM_VLLM_MODEL_NAME": "demo", "A": "'$x' # y", "B": "1"}


@given(models=st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=70), max_size=30))
@relaxed
def test_a_deployment_is_named_as_berth_up_names_it(models: list[str]) -> None:
    models = ["meta-llama/Llama-3.1-8B", "/models/My Model/", "a--b", "..", *models]
    parts = ["lib/messages", "lib/envfile", "lib/settings"]
    done = bash('for model; do deployment_name "$model"; done', *models, parts=parts)
    assert done.stdout.splitlines() == [deployment.slug(model) for model in models]


def test_a_name_that_no_site_file_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site.env").write_text("SITE_SCRATCH=/x\nSITE_PARTITON=gpu\n")
    done = bash('read_site "$1"', tmp_path / "site.env", parts=["lib/messages", "lib/envfile", "lib/site"])
    assert done.returncode == 64
    assert "SITE_PARTITON: no such name in a site file" in done.stderr


def test_the_job_script_says_how_it_is_called(tmp_path: Path) -> None:
    script = APPTAINER / "serve.sbatch"
    for words in ((), ("--no-such-option", "x.env")):
        done = subprocess.run(["bash", script, *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 64
        assert "sbatch [sbatch options] apptainer/serve.sbatch [options] ENVFILE" in done.stdout
        assert "set -uo pipefail" not in done.stdout
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(["bash", script, "x.env"], capture_output=True, text=True, cwd=tmp_path, env=outside)
    assert done.returncode == 64
    assert "this is a job script" in done.stderr


def test_only_what_is_right_everywhere_stands_in_the_header() -> None:
    lines = (APPTAINER / "serve.sbatch").read_text(encoding="utf-8").splitlines()
    options = {line.split("=")[0].removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH ")}
    assert options == {"job-name", "ntasks-per-node", "signal", "requeue", "open-mode", "output"}


def test_the_site_files_that_come_along_are_read() -> None:
    for file in (APPTAINER / "site.env.example", *APPTAINER.glob("sites/*.env")):
        done = bash('read_site "$1"', file, parts=["lib/messages", "lib/envfile", "lib/site"])
        assert done.returncode == 0, done.stderr
