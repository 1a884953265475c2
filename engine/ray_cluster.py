"""One node of a Ray cluster that an engine has for itself: `python -P -m engine.ray_cluster`, in an image with Ray.

It reads what every node of several is told: VLLM_NNODES, VLLM_NODE_RANK, VLLM_MASTER_ADDR, VLLM_MASTER_PORT. The engine
is started on the head alone, once all nodes have joined; the other nodes end with the head's Ray.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine import credentials, devices, follower, names, nodes
from engine.messages import Exit, Problem, complain, say

PORT = 6379  # Ray's own
POLL_S = 2.0
STOPPING_S = 20.0
_OF_NODES = ("VLLM_NNODES", "VLLM_NODE_RANK", "VLLM_MASTER_ADDR", "VLLM_MASTER_PORT")
_TOKEN = Path("/tmp/ray_token")  # noqa: S108 (the container's own)


@dataclass(frozen=True)
class Node:
    """This machine's place; `address` is its own."""

    count: int
    rank: int
    head: str
    port: int
    address: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Node":
        """As the environment tells. Raises ValueError with the name of what is missing or no number."""
        count, rank, head = (environ.get(name, "") for name in _OF_NODES[:3])
        if not count.isdigit() or not rank.isdigit() or not head:
            raise ValueError(", ".join(_OF_NODES[:3]))
        address = environ.get(nodes.HOST_IP) or nodes.towards(head) or ""
        return cls(int(count), int(rank), head, int(environ.get(_OF_NODES[3]) or PORT), address)

    def start(self, devices: int | None) -> list[str]:
        """The words that start this node's Ray."""
        where = ["--head", "--port", str(self.port), "--include-dashboard", "false"]
        where = where if self.rank == 0 else ["--address", f"{self.head}:{self.port}"]
        words = ["ray", "start", *where, "--node-ip-address", self.address, "--temp-dir", "/tmp/ray"]  # noqa: S108
        return [*words, "--block", "--disable-usage-stats", *(["--num-gpus", str(devices)] if devices else [])]


def token(key: str) -> str:
    """What Ray asks of whoever reaches its ports; all nodes have the engine's key, and so need no other secret."""
    return hashlib.sha256(f"berth ray {key}".encode()).hexdigest()


def ray_environ(environ: Mapping[str, str], node: Node) -> dict[str, str]:
    """The environment of Ray and of the engine: Ray's own address and lock, and nothing of vLLM's other way."""
    rest = {name: value for name, value in environ.items() if name not in _OF_NODES}
    return {
        **rest,
        "RAY_ADDRESS": f"{node.head}:{node.port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(_TOKEN),
        # The engine has drained by then, and nodes whose head has gone would wait for it.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        nodes.HOST_IP: node.address,
        "VLLM_DISTRIBUTED_EXECUTOR_BACKEND": "ray",
    }


def problem(environ: Mapping[str, str]) -> Problem | None:
    """What keeps this node from starting."""
    try:
        node = Node.of(environ)
    except ValueError as error:
        return Problem(f"a node of a Ray cluster must know {error}", "env/node.env.example says what they are")
    if not node.address:
        return Problem(f"there is no way from here to the head, {node.head}", "set BERTH_HEAD_ADDRESS to its address")
    if not _key(environ):
        hint = f"set {names.API_KEY}, the same on every host: Ray's own token is made of it"
        return Problem("whoever reaches Ray's ports runs programs here, and there is no key to lock them with", hint)
    return None


def _key(environ: Mapping[str, str]) -> str:
    decisions, _ = credentials.settle(environ, environ)
    settled = {name: value for one in decisions for name, value in one.environ.items()}
    return environ.get(names.API_KEY) or settled.get(names.API_KEY) or ""


def main() -> int:
    """Run this node until its engine, or its head, has ended; return the exit code."""
    if wrong := problem(os.environ):
        complain(wrong)
        return wrong.exit_code
    node = Node.of(os.environ)
    with open(os.open(_TOKEN, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(token(_key(os.environ)))
    environ = ray_environ(os.environ, node)
    device = os.environ.get(names.DEVICE) or next(iter(devices.detect()))
    return _run(node, node.start(devices.load(device).visible_devices(os.environ)), environ)


def _run(node: Node, start: Sequence[str], environ: Mapping[str, str]) -> int:
    running: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def stop(number: int, _: object) -> None:
        asked.append(number)
        if running:
            running[-1].terminate()

    signal.signal(signal.SIGTERM, stop)
    if node.rank > 0:
        follower.wait_for(node.head, node.port)
    running.append(subprocess.Popen(start, env=environ))
    try:
        if node.rank > 0:
            return _follow(running[0], node, asked)
        waiting = [sys.executable, "-P", "-m", "engine.ray_nodes", f"{node.head}:{node.port}", str(node.count)]
        if code := subprocess.run(waiting, env=environ).returncode:
            return code
        running.append(subprocess.Popen([sys.executable, "-P", "-m", "engine.serve"], env=environ))
        return running[1].wait()
    finally:
        running[0].terminate()
        try:
            running[0].wait(STOPPING_S)
        except subprocess.TimeoutExpired:
            running[0].kill()


def _follow(ray: "subprocess.Popen[bytes]", node: Node, asked: Sequence[int]) -> int:
    """Ray itself would notice only after minutes that its head has gone."""
    missed = 0
    while ray.poll() is None and missed < 2:
        time.sleep(POLL_S)
        missed = 0 if follower.listens(node.head, node.port) else missed + 1
    if asked or missed:
        say(f"the head of this deployment, {node.head}, has ended, and so does this node")
        return Exit.OK
    complain(Problem("Ray has ended on this node", "its last words stand above"))
    return Exit.FAILED


if __name__ == "__main__":
    sys.exit(main())
