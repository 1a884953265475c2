"""A node of a Ray cluster: what it starts, what it must know, and how its ports are locked."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from engine import follower, nodes, ray_cluster
from engine.messages import Exit

HEAD = {
    "VLLM_NNODES": "2",
    "VLLM_NODE_RANK": "0",
    "VLLM_MASTER_ADDR": "10.0.0.1",
    "VLLM_MASTER_PORT": "6379",
    "VLLM_HOST_IP": "10.0.0.1",
    "VLLM_API_KEY": "sesame",
}
FOLLOWER = {**HEAD, "VLLM_NODE_RANK": "1", "VLLM_HOST_IP": "10.0.0.2"}


def test_the_head_opens_the_cluster_and_the_others_join_it() -> None:
    head = ray_cluster.Node.of(HEAD).start(8)
    assert head[:5] == ["ray", "start", "--head", "--port", "6379"]
    assert head[head.index("--node-ip-address") + 1] == "10.0.0.1"
    assert head[-2:] == ["--num-gpus", "8"]
    other = ray_cluster.Node.of(FOLLOWER).start(None)
    assert other[:4] == ["ray", "start", "--address", "10.0.0.1:6379"]
    assert "--num-gpus" not in other


def test_the_engine_is_told_of_ray_and_of_nothing_else() -> None:
    environ = ray_cluster.ray_environ(HEAD, ray_cluster.Node.of(HEAD))
    assert not set(ray_cluster._OF_NODES) & environ.keys()
    assert environ["VLLM_DISTRIBUTED_EXECUTOR_BACKEND"] == "ray"
    assert environ["RAY_ADDRESS"] == "10.0.0.1:6379"
    assert environ["RAY_AUTH_MODE"] == "token"


def test_all_nodes_have_the_same_token_and_it_does_not_show_the_key() -> None:
    assert ray_cluster.token("sesame") == ray_cluster.token("sesame") != ray_cluster.token("other")
    assert "sesame" not in ray_cluster.token("sesame")


@pytest.mark.parametrize("missing", ["VLLM_NNODES", "VLLM_NODE_RANK", "VLLM_MASTER_ADDR"])
def test_a_node_that_does_not_know_its_place_says_so(missing: str) -> None:
    wrong = ray_cluster.problem({**HEAD, missing: ""})
    assert wrong is not None
    assert missing in wrong.sentence
    assert wrong.exit_code == Exit.BAD_SETTING


def test_a_cluster_without_a_lock_is_not_opened() -> None:
    assert ray_cluster.problem(HEAD) is None
    wrong = ray_cluster.problem({**HEAD, "VLLM_API_KEY": ""})
    assert wrong is not None
    assert "no key" in wrong.sentence


def test_a_head_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "towards", lambda head: None)
    wrong = ray_cluster.problem({**HEAD, "VLLM_HOST_IP": "", "VLLM_MASTER_ADDR": "nobody.invalid"})
    assert wrong is not None
    assert "nobody.invalid" in wrong.sentence


def test_a_follower_ends_with_the_heads_ray(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ray_cluster, "POLL_S", 0.05)
    looked = threading.Event()

    def listens(address: str, port: int) -> bool:
        looked.set()
        return real(address, port)

    real = follower.listens
    monkeypatch.setattr(follower, "listens", listens)
    head = socket.create_server(("127.0.0.1", 0))
    node = ray_cluster.Node(2, 1, "127.0.0.1", head.getsockname()[1], "127.0.0.1")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as ray:
        threading.Thread(target=lambda: (looked.wait(), head.close()), daemon=True).start()
        began = time.monotonic()
        assert ray_cluster._follow(ray, node, []) == Exit.OK
        assert time.monotonic() - began < 60
        ray.kill()
    assert "has ended, and so does this node" in capfd.readouterr().err


def test_a_ray_that_ends_by_itself_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "POLL_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as head:
        node = ray_cluster.Node(2, 1, "127.0.0.1", head.getsockname()[1], "127.0.0.1")
        with subprocess.Popen([sys.executable, "-c", "pass"]) as ray:
            assert ray_cluster._follow(ray, node, []) == Exit.FAILED
