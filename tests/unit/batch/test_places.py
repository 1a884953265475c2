"""The same batch on each runtime: what is run, and what a dry run shows of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from berth.batch import compose, slurm
from berth.batch.folder import Batch
from berth.deployment import resolve
from berth.errors import BerthError
from berth.runtimes import Request
from berth.runtimes.slurm import Runtime
from tests.support import fake_slurm
from tests.unit.batch.offline import ROOT, request

DEMO = ROOT / "env/models/demo.env"


def berth(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join((str(ROOT), str(ROOT / "microservice")))
    ours = ("LLM_", "VLLM_", "BERTH_", "HF_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "berth", *words],
        cwd=cwd,
        env={**kept, "PYTHONPATH": paths, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_dry_run_starts_nothing_and_shows_no_secret(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(request(0))
    words = ("batch", "in.jsonl", "-o", "out.jsonl", "--runtime", "native", "--device", "cpu", "--env", str(DEMO))
    done = berth(*words, "--dry-run", "--json", cwd=tmp_path, HF_TOKEN="hf_secret")
    (command,) = json.loads(done.stdout)["commands"]
    assert f"-m engine.batch {tmp_path}/out.jsonl.batch" in command
    assert "LLM_VLLM_MODEL_NAME=demo" in command
    assert "hf_secret" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_warm_is_the_launcher_on_a_socket_of_its_own(tmp_path: Path) -> None:
    words = ("warm", "--runtime", "native", "--device", "cpu", "--env", str(DEMO), "--dry-run")
    assert "-m engine.warm" in berth(*words, cwd=tmp_path).stdout


def test_a_bad_setting_is_told_before_anything_else(tmp_path: Path) -> None:
    words = ("batch", "nowhere", "-o", "out.jsonl", "--runtime", "native", "--device", "cpu", "--env", str(DEMO))
    done = berth(*words, cwd=tmp_path, VLLM_MAX_MODEL_LEN="many")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "VLLM_MAX_MODEL_LEN" in done.stderr


def test_a_container_has_the_folder_and_writes_as_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = resolve([DEMO], "cpu", {"PATH": os.environ["PATH"]})
    for uid, user in ((1234, ["--user", "1234:0"]), (0, [])):
        monkeypatch.setattr(os, "getuid", lambda uid=uid: uid)
        argv = compose.program(deployment, tmp_path, ["-m", "engine.batch", "{folder}"]).argv
        assert argv[argv.index("-T") + 1 : argv.index("--name")] == user
        assert argv[argv.index("--volume") + 1] == f"{tmp_path}:/batch"
        assert argv[-6:] == ["engine", "python", "-P", "-m", "engine.batch", "/batch"]


def array(tmp_path: Path, nodes: int | None = None) -> slurm.Array:
    (tmp_path / "in.jsonl").write_text(request(0))
    batch = Batch(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    shell = {"PATH": os.environ["PATH"], "VLLM_TP_SIZE": "2"}
    deployment = resolve([DEMO], "cuda", shell)
    runtime = Runtime(Request(time_s=3600, replicas=3, nodes=nodes))
    runtime._store = fake_slurm.store(tmp_path / "scratch")
    return slurm.Array(batch, batch.preview("demo", "cuda"), deployment, runtime)


def test_jobs_are_an_array_of_single_nodes_with_the_gpus_of_one_engine(tmp_path: Path) -> None:
    command = array(tmp_path).command()
    assert command[:2] == ["sbatch", "--parsable"]
    assert {"--array=0-2", "--nodes=1", "--time=01:00:00"} <= set(command)
    assert sum(word.startswith("--array") for word in command) == 1
    assert command[command.index("--parts") + 1] == "3"
    place = command[command.index("--folder") + 1]
    assert place.startswith(f"{tmp_path}/scratch/berth/batches/demo-")
    assert f"{place}/job/batch.sbatch" in command


def test_a_model_over_several_nodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BerthError, match="single nodes"):
        array(tmp_path, nodes=2).command()
