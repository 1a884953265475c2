"""Several deployments at once: looked at together, submitted all or none."""

import json
from pathlib import Path

import pytest

from berth.errors import BerthError
from berth.progress import Progress
from berth.slurm import launching

SBATCH = """#!/bin/sh
echo "sbatch $*" >>"$FAKE/asked"
case $* in *berth-broken*) echo "sbatch: error: Batch job submission failed: Invalid account" >&2; exit 1 ;; esac
n=$(($(cat "$FAKE/n" 2>/dev/null || echo 100) + 1)); echo $n | tee "$FAKE/n"
"""
ONE = '[[deployment]]\nname = "{}"\nenv = ["env/cpu.env", "env/models/demo.env"]\ntime = "10m"\n'


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm of four scripts on PATH, a store with an image; returns the directory with what was asked."""
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {"sbatch": SBATCH, "scancel": '#!/bin/sh\necho "scancel $*" >>"$FAKE/asked"\n'}
    scripts |= dict.fromkeys(("squeue", "sinfo", "sacct", "scontrol", "apptainer"), '#!/bin/sh\ncat "$FAKE/squeue"\n')
    for name, text in scripts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "squeue").touch()
    image = tmp_path / "berth" / "sif" / "vllm-cpu.sif"
    image.parent.mkdir(parents=True)
    image.touch()
    (tmp_path / "site.env").write_text(f"SITE_SCRATCH={tmp_path}\n")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("BERTH_SITE", str(tmp_path / "site.env"))
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return tmp_path


def write(place: Path, *parts: str) -> Path:
    file = place / "fleet.toml"
    file.write_text("\n".join(parts))
    return file


def prepare(file: Path, **how: bool) -> list[launching.Launch]:
    return launching.prepare(file, Progress(), **how)


def asked(place: Path, program: str) -> list[str]:
    file = place / "asked"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line for line in lines if line.startswith(program)]


def test_all_are_submitted_with_their_own_times_and_settings(slurm: Path):
    more = 'keep_alive = "15m"\nsettings = { VLLM_MAX_MODEL_LEN = 128 }'
    done = launching.launch(prepare(write(slurm, ONE.format("a"), ONE.format("b"), more)), Progress())
    assert [one.deployed.name for one in done] == ["a", "b"]
    assert [len(one.deployed.jobs) for one in done] == [1, 2]
    assert "--dependency=after:102+5" in asked(slurm, "sbatch")[2]
    job_env = slurm / "berth" / "deployments" / "b" / "job.env"
    assert "VLLM_MAX_MODEL_LEN=128\n" in job_env.read_text()
    assert json.loads((job_env.parent / "deployment.json").read_text())["jobs"] == ["102", "103"]


def test_when_one_is_refused_those_before_it_are_cancelled(slurm: Path):
    ready = prepare(write(slurm, ONE.format("a"), ONE.format("broken"), ONE.format("c")))
    with pytest.raises(BerthError, match="Invalid account"):
        launching.launch(ready, Progress())
    assert len(asked(slurm, "sbatch")) == 2
    assert asked(slurm, "scancel") == ["scancel --quiet 101"]


def test_nothing_is_submitted_while_anything_is_wrong(slurm: Path):
    file = write(slurm, ONE.format("a"), ONE.format("b"), "settings = { VLLM_MAX_NUM_SEQ = 3 }", ONE.format("a b"))
    with pytest.raises(BerthError) as caught:
        prepare(file)
    sentences = [problem.sentence for problem in caught.value.problems]
    assert "deployment 2 (b): " in sentences[0]
    assert "VLLM_MAX_NUM_SEQ" in sentences[0]
    assert "a b: not a name for a deployment" in sentences[1]
    assert asked(slurm, "sbatch") == []


def test_the_handover_of_a_chain_can_be_given(slurm: Path):
    file = write(slurm, ONE.format("a"), 'keep_alive = "30m"\nhandover = "7m"')
    assert "--dependency=after:JOB1+3" in prepare(file, ask_cluster=False)[0].commands[1]
    with pytest.raises(BerthError, match="--handover is for --keep-alive"):
        prepare(write(slurm, ONE.format("a"), 'handover = "7m"'), ask_cluster=False)


def test_two_of_one_name_are_refused(slurm: Path):
    with pytest.raises(BerthError, match="a: two deployments have this name"):
        prepare(write(slurm, ONE.format("a"), ONE.format("a")))


def test_a_name_that_has_a_job_is_refused(slurm: Path):
    file = write(slurm, ONE.format("a"))
    launching.launch(prepare(file), Progress())
    (slurm / "squeue").write_text("101|RUNNING|None|n1|1|2026-11-21T10:00:00|2026-11-21T11:00:00|30:00|berth-a\n")
    with pytest.raises(BerthError, match="a has a job already"):
        prepare(file)


def test_a_dry_run_asks_the_cluster_nothing(slurm: Path):
    (ready,) = prepare(write(slurm, ONE.format("a")), ask_cluster=False)
    assert ready.commands[0].startswith("sbatch --parsable --job-name=berth-a ")
    assert asked(slurm, "sbatch") == []
