"""What is looked at on the cluster's file system before a job is submitted."""

import os
from pathlib import Path

import pytest

from berth import deployment as deployments
from berth.deployment import Deployment
from berth.errors import Exit
from berth.runtimes import Request
from berth.slurm import checks, submit
from berth.slurm.cluster import Completed
from berth.slurm.site import Site
from berth.slurm.store import Store
from tests.support.fake_slurm import FakeCluster


def llama(place: Path) -> Deployment:
    """A deployment of a model on the hub."""
    (place / "env").mkdir(exist_ok=True)
    (place / "env" / "cpu.env").write_text("LLM_DEVICE=cpu\nLLM_VLLM_MODEL_NAME=meta-llama/Llama-3.1-8B\n")
    return deployments.resolve([], "cpu", {}, place)


def test_what_the_cluster_lacks_is_found_in_one_look(tmp_path: Path) -> None:
    where = Store(FakeCluster(apptainer=Completed("", "none", 1)), Site(scratch=str(tmp_path), models="/nowhere"))
    found = checks.problems(submit.plan(llama(tmp_path), Request(), where), llama(tmp_path), where)
    assert [problem.exit_code for problem in found] == [Exit.MISSING_PREREQUISITE] * 2
    assert found[0].sentence == f"there is no image {tmp_path}/berth/sif/vllm-cpu.sif"
    assert found[1].sentence == "SITE_MODELS=/nowhere: not a directory that you can read"


@pytest.mark.parametrize(
    ("labels", "nodes", "said"),
    [
        ("berth.device: cpu\norg.label-schema.build-arch: amd64\n", "NodeName=n1 Arch=x86_64 CPUs=2", ""),
        ("berth.device: cuda\n", "", "is an image for cuda, not for cpu"),
        ("org.label-schema.build-arch: amd64\n", "NodeName=n1 Arch=aarch64\n", "is an image for x86_64, and the nodes"),
        ("", "NodeName=n1 Arch=aarch64\n", ""),
    ],
)
def test_an_image_for_another_device_or_processor(labels: str, nodes: str, said: str) -> None:
    cluster = FakeCluster(inspect=labels, scontrol=nodes)
    found = checks.image_problems("/s/vllm.sif", "cpu", cluster, Site())
    assert said in (found[0].sentence if found else "")
    assert bool(found) is bool(said)


def test_a_model_counts_as_there_when_all_of_it_is(tmp_path: Path) -> None:
    deployment, where = llama(tmp_path), Store(FakeCluster(), Site(scratch=str(tmp_path)))
    assert not checks.has_model(deployment, where)
    snapshot = tmp_path / "berth/models/hub/models--meta-llama--Llama-3.1-8B/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_text("x")
    assert checks.has_model(deployment, where)
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    (blobs / "1.incomplete").write_text("")
    assert not checks.has_model(deployment, where)
    assert (checks.free_bytes(deployment, where) or 0) > 0


def test_an_image_that_is_there_and_readable_is_no_problem(tmp_path: Path) -> None:
    where = Store(FakeCluster(inspect="berth.device: cpu\n", scontrol=""), Site(scratch=str(tmp_path)))
    made = submit.plan(llama(tmp_path), Request(), where)
    os.makedirs(os.path.dirname(made.sif))
    Path(made.sif).write_text("")
    assert checks.problems(made, llama(tmp_path), where) == []
