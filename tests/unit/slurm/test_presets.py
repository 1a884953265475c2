"""The presets of large models: what Slurm is asked for, and what each node's vLLM is told."""

from pathlib import Path

import pytest

from berth import deployment as deployments
from berth.paths import ROOT
from berth.runtimes import Request
from berth.slurm import submit
from berth.slurm.cluster import Cluster
from berth.slurm.site import Site
from berth.slurm.store import Store
from engine import catalog, preflight, settings
from engine.decisions import Situation
from engine.devices import cuda

# preset: nodes, GPUs in each, tensor parallel, pipeline parallel
PRESETS = {
    "llama-3.1-70b": (1, 4, 4, 1),
    "llama-3.1-405b": (1, 8, 8, 1),
    "llama-3.1-405b-2x8": (2, 8, 8, 2),
    "llama-3.1-405b-4x4": (4, 4, 4, 4),
}
Sizes = tuple[int, int, int, int]


def resolved(preset: str) -> deployments.Deployment:
    return deployments.resolve([ROOT / "env/cuda.env", ROOT / f"env/models/{preset}.env"], None, {}, ROOT)


def told(preset: str, rank: int, nodes: int) -> dict[str, str]:
    """The environment of the engine's container on one node, as apptainer/lib/node.sh makes it."""
    given = submit.job_settings(resolved(preset))
    given = {name: value for name, value in given.items() if not name.startswith(("BERTH_", "COMPOSE_"))}
    door = {"VLLM_HEADLESS": "true"} if rank else {"VLLM_UDS": "/tmp/s/engine.sock"}
    several = {
        "VLLM_NNODES": str(nodes),
        "VLLM_NODE_RANK": str(rank),
        "VLLM_MASTER_ADDR": "10.0.0.1",
        "VLLM_MASTER_PORT": "20489",
        "VLLM_DISTRIBUTED_EXECUTOR_BACKEND": "mp",
    }
    return {**given, **door, **(several if nodes > 1 else {})}


def after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


@pytest.mark.parametrize(("preset", "sizes"), PRESETS.items(), ids=PRESETS)
def test_slurm_is_asked_for_the_presets_nodes_and_gpus(preset: str, sizes: Sizes, tmp_path: Path) -> None:
    nodes, gpus, _, _ = sizes
    site = Site(scratch=str(tmp_path), partition="gpu")
    argv = submit.plan(resolved(preset), Request(), Store(Cluster(None), site)).commands()[0]
    assert f"--nodes={nodes}" in argv
    assert f"--gpus-per-node={gpus}" in argv
    assert "--ntasks-per-node=1" in argv


@pytest.mark.parametrize(("preset", "sizes"), PRESETS.items(), ids=PRESETS)
def test_every_node_runs_its_part_of_the_preset(preset: str, sizes: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, gpus, tensor, pipeline = sizes
    monkeypatch.setattr(cuda, "visible_devices", lambda environ: gpus)
    known = catalog.parse((catalog.TRACKED / "cuda.json").read_text(encoding="utf-8"))
    for rank in range(nodes):
        reading = settings.read(told(preset, rank, nodes), known, "cuda")
        assert not reading.problems
        command = settings.build(reading, known).argv
        assert after(command, "--tensor-parallel-size") == str(tensor)
        assert after(command, "--max-model-len") == "32768"
        assert ("--headless" in command) == (rank > 0)
        if nodes > 1:
            assert after(command, "--pipeline-parallel-size") == str(pipeline)
            assert after(command, "--node-rank") == str(rank)
            assert after(command, "--nnodes") == str(nodes)
        values = settings.arguments.values(command, known)
        assert not preflight._too_many_ranks(Situation({}, values, None), "cuda")


def test_a_preset_for_several_nodes_is_refused_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "visible_devices", lambda environ: 8)
    known = catalog.parse((catalog.TRACKED / "cuda.json").read_text(encoding="utf-8"))
    reading = settings.read(told("llama-3.1-405b-2x8", 0, 1), known, "cuda")
    values = settings.arguments.values(reading.args(), known)
    (problem,) = preflight._too_many_ranks(Situation({}, values, None), "cuda")
    assert "asks for 16 devices; visible here: 8" in problem.sentence
