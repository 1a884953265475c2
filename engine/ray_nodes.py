"""Waits until all nodes of a job are in its Ray cluster: `python -P -m engine.ray_nodes ADDRESS NODES [SECONDS]`."""

import sys
import time
from importlib import import_module
from typing import Any

from engine.messages import Exit, Problem, complain, say

TIMEOUT_S = 300.0  # Ray starts in seconds; reading the image from a slow file system may take minutes
POLL_S = 0.5


def wait(ray: Any, address: str, nodes: int, timeout_s: float) -> Problem | None:
    """Join the cluster at `address` and wait for `nodes` living nodes; the problem when they do not come."""
    deadline = time.monotonic() + timeout_s
    hint = "set SITE_INTERFACE in the site file to the interface that joins the nodes; Ray's logs are in its session"
    alive = 0
    while time.monotonic() < deadline:
        try:
            if not ray.is_initialized():
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            alive = sum(node["Alive"] for node in ray.nodes())
        except (OSError, RuntimeError):  # nobody listens there yet
            alive = 0
        if alive >= nodes:
            say(f"Ray has {alive} nodes at {address}")
            return None
        time.sleep(POLL_S)
    return Problem(f"{alive} of {nodes} nodes are in the Ray cluster at {address}", hint, Exit.NOT_READY)


def main() -> int:
    """Return 0, or the exit code for what is wrong."""
    try:
        ray: Any = import_module("ray")
    except ImportError:
        hint = "make one with apptainer/ray.Dockerfile, or leave BERTH_EXECUTOR out: vLLM needs no Ray"
        problem: Problem | None = Problem("BERTH_EXECUTOR=ray, and there is no Ray in this image", hint)
    else:
        timeout = float(sys.argv[3]) if len(sys.argv) > 3 else TIMEOUT_S
        problem = wait(ray, sys.argv[1], int(sys.argv[2]), timeout)
    if problem is None:
        return Exit.OK
    complain(problem)
    return problem.exit_code


if __name__ == "__main__":
    sys.exit(main())
