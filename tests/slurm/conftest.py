"""The lab's Slurm cluster: up once for a run, and left running (tests/lab/slurm-cluster down removes it)."""

import os
import subprocess

import pytest

from tests.support import sif, slurm
from tests.support.slurm import Checkout, Lab, User


@pytest.fixture(scope="session")
def cluster() -> Lab:
    """The cluster, up. Skips with the reason where this machine can have none."""
    if reason := slurm.missing():
        pytest.skip(reason)
    return Lab.up()


@pytest.fixture(scope="session")
def alice(cluster: Lab) -> User:
    """An ordinary user of account `lab`: `alice("sinfo")`, `alice.sbatch(…)`, `with alice.begin(…) as running:`."""
    return cluster.user("alice")


@pytest.fixture(scope="session")
def bob(cluster: Lab) -> User:
    """Another ordinary user, who must not get at what is alice's."""
    return cluster.user("bob")


@pytest.fixture(scope="session")
def checkout(cluster: Lab) -> Checkout:
    """This checkout below /shared, alice's: `checkout.berth(alice, "ls")`. $BERTH_TEST_CHECKOUT names another place."""
    place = os.environ.get("BERTH_TEST_CHECKOUT", "/shared/berth")
    done = subprocess.run([slurm.LAB, "sync", place], capture_output=True, text=True)
    assert done.returncode == 0, f"copying the checkout failed: {done.stdout}{done.stderr}"
    return Checkout(cluster, place)


@pytest.fixture(scope="session")
def stub_sif(cluster: Lab) -> str:
    """Path in the cluster of a CPU engine's SIF whose vLLM is tests/support/stub_vllm.py: ready in a second."""
    if reason := sif.missing(sif.service_image()):
        pytest.skip(reason)
    return sif.make(cluster, sif.build_stub_image(), "stub-cpu.sif")


@pytest.fixture(scope="session")
def real_sif(cluster: Lab) -> str:
    """Path in the cluster of a SIF with the real vLLM for CPU; ready in a minute."""
    if reason := sif.missing(sif.engine_image()):
        pytest.skip(reason)
    return sif.make(cluster, sif.engine_image(), "vllm-cpu.sif", compressed=False)
