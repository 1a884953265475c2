"""A node needs two facts, its rank and the address of its head: the launcher settles the rest."""

import socket
from pathlib import Path

import pytest

from engine import nodes, settings
from engine.decisions import Situation
from engine.healthcheck import healthy
from engine.unix_http import remove_stale
from tests.unit.engine.conftest import Read

TWO = {"VLLM_NNODES": "2", "VLLM_TP_SIZE": "2", "VLLM_MASTER_ADDR": "10.0.0.1"}


def situation(environ: dict[str, str] | None = None, **flags: str) -> Situation:
    values = {"nnodes": "2", "master-addr": "10.0.0.1", **{name.replace("_", "-"): it for name, it in flags.items()}}
    return Situation(environ or {}, values, None)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two networks, whose way to the head is the second."""
    monkeypatch.setattr(nodes, "addresses", lambda: {"lo": "127.0.0.1", "eth0": "192.0.2.7", "ib0": "10.0.0.2"})
    monkeypatch.setattr(nodes, "towards", lambda head: "10.0.0.2" if head.startswith("10.0.0.") else None)


def settled(given: Situation) -> dict[str, str | None]:
    return {name: value for one in nodes.decide(given) for name, value in one.environ.items()}


def test_a_rank_after_the_first_is_headless_and_has_no_door(read: Read, device: str) -> None:
    head = read(on=device, **TWO, VLLM_NODE_RANK="0", LLM_VLLM_PORT="8008").args()
    assert "--headless" not in head
    assert "--port" in head
    follower = read(on=device, **TWO, VLLM_NODE_RANK="1", LLM_VLLM_PORT="8008").args()
    assert "--headless" in follower
    assert "--port" not in follower


def test_a_head_that_says_that_it_is_one_keeps_its_door(read: Read) -> None:
    assert "--port" in read(**TWO, VLLM_NODE_RANK="0", VLLM_HEADLESS="false", LLM_VLLM_PORT="8008").args()


def test_the_executor_needs_no_ray_unless_it_is_asked_for() -> None:
    assert any(one.args == ("--distributed-executor-backend", "mp") for one in nodes.decide(situation()))
    assert nodes.decide(situation(distributed_executor_backend="ray")) == []
    assert not any(one.args for one in nodes.decide(situation(distributed_executor_backend="mp")))
    assert nodes.decide(Situation({}, {}, None)) == []


def test_address_and_interface_are_those_on_the_way_to_the_head() -> None:
    assert settled(situation()) == {nodes.HOST_IP: "10.0.0.2", nodes.GLOO: "ib0", nodes.NCCL: "ib0"}


def test_an_interface_that_is_named_beats_the_way_to_the_head() -> None:
    assert settled(situation({nodes.GLOO: "eth0"})) == {nodes.HOST_IP: "192.0.2.7", nodes.NCCL: "eth0"}


def test_what_is_set_stays() -> None:
    assert settled(situation({nodes.HOST_IP: "192.0.2.7", nodes.NCCL: "=ib0,ib1"})) == {nodes.GLOO: "eth0"}


def test_all_nodes_on_one_machine_are_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "towards", lambda head: "127.0.0.1")
    assert settled(situation(master_addr="127.0.0.1")) == {}


def test_an_interface_that_is_not_there_and_a_head_that_nobody_knows_are_refused() -> None:
    assert nodes.problems(situation()) == []
    (problem,) = nodes.problems(situation({nodes.GLOO: "eth7"}))
    assert "no network interface eth7" in problem.sentence
    assert "ib0 (10.0.0.2)" in problem.hint
    (problem,) = nodes.problems(situation(master_addr="nobody.invalid"))
    assert "VLLM_MASTER_ADDR=nobody.invalid" in problem.sentence


def test_this_machines_own_interfaces_and_ways_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert nodes.addresses()["lo"] == "127.0.0.1"
    assert nodes.towards("127.0.0.1") == "127.0.0.1"
    assert nodes.towards("nobody.invalid") is None
    assert nodes.towards("a" * 300) is None


def test_names_that_are_empty_do_not_reach_the_libraries(read: Read) -> None:
    assert not {nodes.GLOO, nodes.NCCL} & read(GLOO_SOCKET_IFNAME="", NCCL_SOCKET_IFNAME="").environ.keys()


def test_the_command_of_a_node_is_whole(read: Read) -> None:
    from engine import catalog

    known = catalog.parse((catalog.TRACKED / "cuda.json").read_text(encoding="utf-8"))
    command = settings.build(read(on="cuda", **TWO, VLLM_NODE_RANK="1"), known)
    assert {"--headless", "--node-rank", "--distributed-executor-backend"} <= set(command.argv)
    assert command.environ[nodes.HOST_IP] == "10.0.0.2"


def test_a_follower_is_well_while_it_holds_its_connection_to_the_head() -> None:
    environ = {"LLM_DEVICE": "cpu", "LLM_VLLM_MODEL_NAME": "demo", **TWO, "VLLM_NODE_RANK": "1"}
    with socket.create_server(("127.0.0.1", 0)) as head:
        there = {**environ, "VLLM_MASTER_ADDR": "127.0.0.1", "VLLM_MASTER_PORT": str(head.getsockname()[1])}
        assert not healthy(there), "nothing follows yet"
        with socket.create_connection(head.getsockname()):
            assert healthy(there)
            connection, _ = head.accept()
            connection.close()
    assert not healthy(there)


def test_a_socket_that_nobody_listens_on_is_removed_and_a_living_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(path))
        engine.listen()
        assert not remove_stale(str(path))
    assert path.exists()
    assert remove_stale(str(path))
    assert not path.exists()
    assert not remove_stale(str(path))
    path.write_text("no socket")
    assert not remove_stale(str(path))
    assert path.exists()
