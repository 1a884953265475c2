"""One model over two nodes with real vLLM; two such jobs on the same nodes; and a node that has no network.

The three jobs start together, once; the order of the tests is that of what happens to them.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.slurm.multinode import ServeJob
from tests.support.slurm import Checkout, Lab, User

pytestmark = pytest.mark.slurm

PLACE = "/shared/tests-multinode"
QUESTION, ANSWER = "Who are you?", "I am Berth's demo model"
NODES = ("n1", "n2")
# Compilation is left out, and no thread is bound to a core: all nodes share this machine's few.
ENGINE = """LLM_DEVICE=cpu
LLM_VLLM_MODEL_NAME=demo
VLLM_MAX_MODEL_LEN=512
VLLM_MAX_NUM_SEQS=4
VLLM_CPU_KVCACHE_SPACE=1
VLLM_ENFORCE_EAGER=true
VLLM_CPU_OMP_THREADS_BIND=nobind
OMP_NUM_THREADS=1
"""
# The engine's container gets a network of its own with nothing in it; the door is reached as ever.
ALONE = """#!/bin/bash
case $* in
*engine.serve*)
    exec unshare --map-current-user --keep-caps --net sh -c 'ip link set lo up; exec apptainer "$@"' apptainer "$@"
    ;;
*) exec apptainer "$@" ;;
esac
"""


@dataclass
class Jobs:
    """Two jobs over the same two nodes, and one on a node without network."""

    first: ServeJob
    second: ServeJob
    alone: ServeJob


@pytest.fixture(scope="module")
def jobs(cluster: Lab, alice: User, checkout: Checkout, real_sif: str) -> Iterator[Jobs]:
    """All three, submitted."""
    alice("rm", "-rf", PLACE)
    alice("mkdir", "-m", "0700", PLACE)
    written = {
        "alone.env": ENGINE,
        "two.env": f"{ENGINE}VLLM_TP_SIZE=2\n",
        "site.env": f"SITE_SCRATCH={PLACE}\n",
        "alone-site.env": f"SITE_SCRATCH={PLACE}\nSITE_APPTAINER={PLACE}/apptainer-alone\n",
        "apptainer-alone": ALONE,
    }
    for name, text in written.items():
        alice("bash", "-c", 'cat >"$0"; chmod 0700 "$0"', f"{PLACE}/{name}", stdin=text)
    over = ("--nodes=2", f"--nodelist={','.join(NODES)}")

    def submit(name: str, *options: str, kind: str, site: str = "site.env") -> ServeJob:
        how = {"place": PLACE, "site": f"{PLACE}/{site}", "sif": real_sif}
        return ServeJob.submit(alice, checkout, name, *options, files=[f"{PLACE}/{kind}.env"], **how)

    made = Jobs(
        submit("first", *over, kind="two"),
        submit("second", *over, kind="two"),
        submit("alone", "--nodes=1", kind="alone", site="alone-site.env"),
    )
    yield made
    alice.cancel(made.first.number, made.second.number, made.alone.number)


def test_two_nodes_answer_as_one(jobs: Jobs) -> None:
    said = jobs.first.wait_for("ready")
    assert said["nodes"] == list(NODES)
    assert ANSWER in jobs.first.ask(QUESTION)
    for rank in (0, 1):
        log = jobs.first.log(rank)
        assert f"world_size=2 rank={rank} local_rank=0" in log
        assert "fall back to torch.distributed" in log or "falling back to torch.distributed" in log


def test_two_such_jobs_on_the_same_nodes_both_answer(jobs: Jobs) -> None:
    said = jobs.second.wait_for("ready")
    assert said["nodes"] == list(NODES)
    assert said["base_url"] != jobs.first.endpoint["base_url"]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda job: job.ask(QUESTION), [jobs.first, jobs.second] * 3))
    assert [answer for answer in answers if ANSWER not in answer] == []


def test_a_node_without_network_serves_a_model_that_is_there(jobs: Jobs, cluster: Lab) -> None:
    (node,) = jobs.alone.wait_for("ready")["nodes"]
    assert ANSWER in jobs.alone.ask(QUESTION)
    workers = [process for process in jobs.alone.processes(node) if "VLLM::Worker" in process.words]
    assert workers
    for worker in workers:
        interfaces = cluster.user("root").say("cat", f"/proc/{worker.pid}/net/dev", node=node).splitlines()[2:]
        assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


def test_killing_one_nodes_engine_ends_the_job_with_a_reason_and_leaves_nothing(jobs: Jobs, cluster: Lab) -> None:
    job = jobs.second
    running = {node: job.processes(node) for node in NODES}
    (worker,) = [process for process in running["n2"] if "VLLM::Worker" in process.words]
    cluster.user("alice")("kill", "-KILL", str(worker.pid), node="n2")
    said = job.wait_for("failed", timeout=90)
    assert said["reason"].startswith("a worker of the engine on this node has died")
    assert "n2, rank 1" in said["reason"]
    assert job.alice.wait_until_ended(job.number, timeout=60) == "FAILED"
    job.wait_until_gone(running)


def test_the_job_beside_it_goes_on_and_drains_on_both_nodes(jobs: Jobs) -> None:
    job = jobs.first
    assert ANSWER in job.ask(QUESTION)
    running = {node: job.processes(node) for node in NODES}
    job.alice("scancel", "--signal=TERM", "--batch", job.number)
    job.wait_for("stopped", timeout=90)
    assert job.alice.wait_until_ended(job.number, timeout=60) == "COMPLETED"
    job.wait_until_gone(running)
