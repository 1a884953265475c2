"""A node without any network: a model that is on the cluster is served, and nobody waits for a hub."""

import pytest

from tests.support.slurm import Checkout, User
from tests.support.slurm_jobs import Jobs

pytestmark = pytest.mark.slurm

# Apptainer as the site's, with the engine where there is nothing but a loopback interface. The door is outside: it
# reaches the engine over its socket.
CUT_OFF = """#!/bin/bash
case " $* " in
*" engine.serve "*) exec unshare --user --map-current-user --net --keep-caps \\
    sh -c 'ip link set lo up && exec apptainer "$@"' apptainer "$@" ;;
esac
exec apptainer "$@"
"""


def test_a_model_of_the_hub_that_is_there_is_served_without_a_network(
    alice: User, checkout: Checkout, stub_sif: str
) -> None:
    jobs = Jobs.make(alice, checkout, stub_sif)
    repository, commit = f"{jobs.store}/models/hub/models--lab--small", "a" * 40
    snapshot = f"{repository}/snapshots/{commit}"
    alice("mkdir", "-p", snapshot, f"{repository}/refs")
    alice("bash", "-c", 'printf %s "$0" >"$1"', commit, f"{repository}/refs/main")
    alice("bash", "-c", 'cp "$0"/models/demo/*.* "$1"', checkout.path, snapshot)
    program = jobs.write("apptainer", CUT_OFF)
    alice("chmod", "0755", program)
    jobs.write("site.env", f"SITE_SCRATCH={jobs.store.removesuffix('/berth')}\nSITE_APPTAINER={program}\n")
    here, elsewhere = (
        jobs.submit(jobs.env(f"LLM_VLLM_MODEL_NAME=lab/{name}\nSTUB_DUMP=/cache/vllm/{name}\n"))
        for name in ("small", "other")
    )
    with here.client() as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "lab/small"
    assert jobs.dump("small")["environ"]["HF_HUB_OFFLINE"] == "1"
    alice.cancel(here.id)
    said = elsewhere.wait("failed")["reason"]
    assert said.startswith("lab/other is not in the model cache, and https://huggingface.co does not answer")
