"""The KV cache of `berth plan` is the one that real vLLM reports: two of the configurations of benchmarks/plan."""

import json
import os
import subprocess

import pytest

from tests.support.engine_python import ROOT, engine_python

pytestmark = pytest.mark.vllm

# A cache of one kind of layers, and one of two kinds that share a pool.
CONFIGURATIONS = ("grouped-query", "windows and full")


def test_tokens_planned_are_within_five_per_cent_of_those_that_vllm_reports() -> None:
    python = engine_python()
    command = [python, "benchmarks/plan", "--json", *CONFIGURATIONS]
    environ = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert [row["configuration"] for row in told["configurations"]] == list(CONFIGURATIONS)
    assert all(row["error"] <= told["limit"] for row in told["configurations"]), told
