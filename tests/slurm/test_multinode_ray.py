"""BERTH_EXECUTOR=ray: real Ray clusters over two nodes, two jobs at once, with a vLLM that does as it is told.

vLLM refuses Ray on a CPU, so the engine is the stub; Ray, the job script and the launcher are real.
"""

import json
from collections.abc import Iterator

import pytest

from tests.slurm.multinode import ServeJob
from tests.support import sif
from tests.support.slurm import Checkout, Lab, User

pytestmark = pytest.mark.slurm

PLACE = "/shared/tests-ray"
NODES = ("n1", "n2")
ENGINE = f"""LLM_DEVICE=cpu
LLM_VLLM_MODEL_NAME=demo
VLLM_TP_SIZE=2
BERTH_EXECUTOR=ray
STUB_DUMP={PLACE}/dump
"""
SITE = f"""SITE_SCRATCH={PLACE}
SITE_BIND={PLACE}/dump
"""


@pytest.fixture(scope="module")
def ray_sif(cluster: Lab, stub_sif: str) -> str:
    """The stub's image with the Ray layer."""
    return sif.make(cluster, sif.build_ray_image(sif.STUB_IMAGE), "stub-ray.sif")


@pytest.fixture(scope="module")
def jobs(cluster: Lab, alice: User, checkout: Checkout, ray_sif: str) -> Iterator[list[ServeJob]]:
    """Two jobs over the same two nodes, both ready."""
    alice("bash", "-c", 'rm -rf "$0"; mkdir -m 0700 "$0" "$0/dump"', PLACE)
    for name, text in {"ray.env": ENGINE, "site.env": SITE}.items():
        alice("bash", "-c", 'cat >"$0"', f"{PLACE}/{name}", stdin=text)
    over = ("--nodes=2", f"--nodelist={','.join(NODES)}")
    how = {"place": PLACE, "site": f"{PLACE}/site.env", "sif": ray_sif}
    made = [ServeJob.submit(alice, checkout, name, *over, files=[f"{PLACE}/ray.env"], **how) for name in ("one", "two")]
    yield made
    alice.cancel(*(job.number for job in made))


def test_each_job_has_a_ray_cluster_of_its_own_over_both_nodes(jobs: list[ServeJob], cluster: Lab) -> None:
    addresses = set()
    for job in jobs:
        assert job.wait_for("ready")["nodes"] == list(NODES)
        assert "Ray has 2 nodes at " in job.log(0)
        addresses.add(job.log(0).partition("Ray has 2 nodes at ")[2].split()[0])
        private, *_ = cluster.user("root").say("sh", "-c", f"ls -d /tmp/berth-*-{job.number}.*", node="n1").split()
        sessions = cluster.user("root").say("ls", f"{private}/tmp/ray", node="n1").split()
        assert len([name for name in sessions if name.startswith("session_2")]) == 1
    assert len(addresses) == 2


def test_vllm_is_started_on_the_head_alone_and_told_of_ray(jobs: list[ServeJob], cluster: Lab) -> None:
    assert [file.name for file in cluster.outside(f"{PLACE}/dump").iterdir()] == ["0.json"]
    said = json.loads(cluster.outside(f"{PLACE}/dump/0.json").read_text())
    words = said["argv"]
    assert words[words.index("--distributed-executor-backend") + 1] == "ray"
    assert words[words.index("--tensor-parallel-size") + 1] == "2"
    assert not {"--nnodes", "--node-rank", "--headless", "--master-addr"} & set(words)
    assert said["environ"]["RAY_ADDRESS"].count(":") == 1


def test_one_job_ends_and_the_others_ray_lives_on(jobs: list[ServeJob]) -> None:
    first, second = jobs
    running = {node: first.processes(node) for node in NODES}
    assert any("raylet" in process.words for process in running["n2"])
    first.alice("scancel", "--signal=TERM", "--batch", first.number)
    first.wait_for("stopped", timeout=90)
    assert first.alice.wait_until_ended(first.number, timeout=60) == "COMPLETED"
    first.wait_until_gone(running)
    for node in NODES:
        assert any("raylet" in process.words for process in second.processes(node))
    assert second.ask("hello")
