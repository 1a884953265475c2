"""What 64 clients at once see when the engine fails or the service stops: the scenes that benchmarks/faults times."""

import json
import subprocess
import sys

import pytest

from tests.support.engine_python import ROOT

SCENES = ["killed", "hangs-first", "hangs-first-whole", "hangs-between", "loading", "garbage", "left", "sigterm", "cut"]


@pytest.mark.parametrize("scene", SCENES)
def test_every_client_gets_its_answer_or_is_told_why_not(scene: str) -> None:
    words = [sys.executable, ROOT / "benchmarks" / "faults", "--json", scene]
    done = subprocess.run(words, text=True, capture_output=True, timeout=300)
    assert done.stdout, done.stderr[-2000:]
    (found,) = json.loads(done.stdout)["scenes"]
    assert found["as_it_should_be"], found | {"seen": done.stderr[-2000:]}
