"""`berth bench serve` with vLLM's own client, and what `berth top` reads, both of real vLLM behind the service."""

from pathlib import Path
from typing import Any

import pytest

from berth.bench import client, compare, record, running, target
from berth.bench.asked import Load
from berth.progress import Progress
from berth.runtimes import Endpoint, Status
from berth.top.here import Here
from tests.contract.service_stack import Stack
from tests.support.engine_python import engine_python

pytestmark = pytest.mark.vllm

LOAD = Load(requests=6, input_tokens=16, output_tokens=8, concurrency=2)


class Running:
    """A runtime that says what the stack is."""

    name, local = "native", True

    def __init__(self, stack: Stack) -> None:
        self.where = Endpoint(stack.url, stack.engine)

    def status(self, deployment: Any = None) -> Status:
        return Status(self.name, "running", "cpu", "demo", endpoint=self.where)


def test_a_service_is_measured_and_seen_while_it_is(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "RUN", tmp_path)
    monkeypatch.setattr(running, "LOG", tmp_path / "bench.log")
    monkeypatch.setattr(client, "engine_directory", lambda _: engine_python().parents[1])
    stack.chat({"messages": [{"role": "user", "content": "What is Deep Learning?"}], "max_tokens": 4})  # it is up
    top = Here(Running(stack))  # type: ignore[arg-type]
    before = top.look()[0]
    assert (before.state, before.in_flight, before.queue) == ("ready", 0, 0)
    assert before.kv_cache_use is not None
    one = target.anywhere(stack.url, None, None)
    assert one.model == "demo"
    told = target.Target("service", stack.url, "demo", "demo", status=Running(stack).status())
    made = running.serve(told, None, LOAD, Progress())
    assert made.figures["completed"] == LOAD.requests
    assert made.figures["total_output_tokens"] == LOAD.requests * LOAD.output_tokens
    assert made.versions["vllm"] == made.versions["client_vllm"]
    kept = record.read(made.write(tmp_path / "a.json"))
    assert len(compare.compare(kept, made)) == 10  # every figure that a table shows is one that vLLM tells
    assert all(len(compare.curve(kept, name)) == 12 for name, _ in compare.CURVES)
    after = top.look()[0]
    assert after.tokens_per_s
    assert after.time_to_first_token_s
