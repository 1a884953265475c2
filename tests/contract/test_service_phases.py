"""What the service says of real vLLM while it starts."""

import pytest

from engine.phases import COMPILING, LOADING, STARTING, WARMING
from tests.contract.service_stack import Stack

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_ready_named_the_phases_of_a_real_start_in_their_order(stack: Stack) -> None:
    """From vLLM's own lines: a wording that is new to engine/phases.py shows here first."""
    named = [said["doing"]["name"] for said in stack.waited if "doing" in said]
    order = [STARTING, LOADING, COMPILING, WARMING]
    assert named == sorted(named, key=order.index)
    assert named[0] == STARTING
    assert named[-1] != STARTING, stack.waited
    assert {said["state"] for said in stack.waited if said.get("doing", {}).get("name") == named[-1]} == {"loading"}
    assert "doing" not in stack.client.get(f"{stack.url}/ready").json()
