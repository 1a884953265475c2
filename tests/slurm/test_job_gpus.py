"""Jobs that ask for GPUs, on nodes whose GPUs are pretended: as far as a job comes without a driver."""

import pytest

from tests.support.slurm import Checkout, User
from tests.support.slurm_jobs import Jobs

pytestmark = pytest.mark.slurm

# The stub image says that it is for CUDA; and what Slurm gave is written down.
LABELLED = """#!/bin/bash
if [[ $1 == inspect ]]; then
    apptainer "$@" | sed 's/^berth.device: .*/berth.device: cuda/'
    exit
fi
[[ " $* " != *" engine.serve "* ]] || printf '%s|%s\\n' "$APPTAINERENV_CUDA_VISIBLE_DEVICES" "$*" >"${0%/*}/started"
exec apptainer "$@"
"""


@pytest.fixture(scope="module")
def jobs(alice: User, checkout: Checkout, stub_sif: str) -> Jobs:
    jobs = Jobs.make(alice, checkout, stub_sif)
    program = jobs.write("apptainer", LABELLED)
    alice("chmod", "0755", program)
    jobs.write("site.env", f"SITE_SCRATCH={jobs.store.removesuffix('/berth')}\nSITE_APPTAINER={program}\n")
    return jobs


def test_a_node_that_shows_too_few_gpus_is_told_before_the_engine_starts(jobs: Jobs) -> None:
    env = jobs.env("LLM_DEVICE=cuda\nVLLM_TP_SIZE=4\n")
    job = jobs.submit(env, options=("--partition=gpu", "--gpus-per-node=2"))
    said = job.wait("failed")
    assert said["reason"].startswith(
        f"{said['node']} shows 2 GPUs, and VLLM_TP_SIZE x VLLM_PP_SIZE needs 4 on each node"
    )
    assert job.exit_code() == "3:0"


def test_the_gpus_that_slurm_gave_reach_the_container(jobs: Jobs, alice: User) -> None:
    env = jobs.env("LLM_DEVICE=cuda\nVLLM_TP_SIZE=2\n")
    job = jobs.submit(env, options=("--partition=gpu", "--gpus-per-node=2"))
    # No driver here: the engine's own word.
    assert job.wait("failed")["reason"].startswith("no NVIDIA GPU is visible here")
    devices, words = alice.lab.outside(f"{jobs.store}/started").read_text().strip().split("|")
    assert len(devices.split(",")) == 2
    assert " --nv " in words
