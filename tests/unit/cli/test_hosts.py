"""Several Docker hosts: how they are named, where they meet, what each is told, and what is remembered of them."""

import json
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth import deployment, options, runtimes
from berth.errors import BerthError, Exit, Problem, failed
from berth.hosts import memory, placing, served
from berth.hosts.host import Host, interfaces, meeting_place
from berth.progress import Progress
from berth.runtimes.hosts import Runtime
from engine.phases import Phase

ADDRESS = {"BERTH_HEAD_ADDRESS": "10.0.0.1"}


def demo(**shell: str) -> deployment.Deployment:
    return deployment.resolve([Path("env/cpu.env"), Path("env/models/demo.env")], None, shell)


def networks(*addresses: str) -> list[IPv4Interface]:
    return [IPv4Interface(address) for address in addresses]


@pytest.mark.parametrize("name", ["gpu-1", "me@gpu-1.example.org", "10.0.0.1:2222", "me@10.0.0.1:22"])
def test_a_host_is_named_as_ssh_takes_it(name: str) -> None:
    assert Host(name).address == f"ssh://{name}"


@pytest.mark.parametrize("name", ["", "-oProxyCommand=true", "a b", "a;b", "me@", "me@-x", "ssh://a", "a:x", "a/b"])
def test_what_is_no_machines_name_is_refused(name: str) -> None:
    with pytest.raises(BerthError) as refused:
        Host(name)
    assert refused.value.exit_code == Exit.BAD_SETTING


@given(st.text(max_size=40))
def test_no_name_reaches_ssh_as_an_option_or_a_command(name: str) -> None:
    try:
        Host(name)
    except BerthError:
        return
    assert not name.startswith("-")
    assert "@-" not in name
    assert not set(name) & set(" \t\n\r;&|`$<>(){}'\"\\/*?~#")


def test_hosts_keep_their_order_and_count_once() -> None:
    assert options.split_hosts("b,a, b") == ("b", "a")
    assert options.split_hosts(None) == ()


def test_networks_that_join_nothing_are_left_out_and_a_fabric_comes_first() -> None:
    said = [
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]},
        {"ifname": "eth0", "addr_info": [{"local": "192.0.2.7", "prefixlen": 24}]},
        {"ifname": "docker0", "addr_info": [{"local": "172.17.0.1", "prefixlen": 16}]},
        {"ifname": "ib0", "addr_info": [{"local": "10.0.0.7", "prefixlen": 16}]},
        {"ifname": "eth1", "addr_info": []},
    ]
    assert interfaces(json.dumps(said)) == networks("10.0.0.7/16", "192.0.2.7/24")


@pytest.mark.parametrize(
    "said", ["", "null", "[1]", '{"a": 1}', '[{"ifname": "e", "addr_info": [{}]}]', "bash: ip: no"]
)
def test_a_host_that_tells_nothing_of_its_networks_has_none(said: str) -> None:
    assert interfaces(said) == []


def test_hosts_meet_in_the_first_network_of_the_head_that_all_are_in() -> None:
    head = networks("10.1.0.1/24", "192.0.2.1/24")
    assert meeting_place([head, networks("192.0.2.2/24", "10.1.0.2/24")]) == "10.1.0.1"
    assert meeting_place([head, networks("192.0.2.2/24")]) == "192.0.2.1"
    assert meeting_place([head, networks("192.0.2.2/24"), networks("198.51.100.1/24")]) is None
    assert meeting_place([head, []]) is None


def test_each_host_is_told_its_rank_and_nothing_else_of_its_own() -> None:
    before = demo(**ADDRESS)
    nodes = placing.nodes(before, [Host("a"), Host("b")])
    head, follower = (placing.told(before, node) for node in nodes)
    assert {name for name in head if head[name] != follower[name]} == {placing.RANK, "DOCKER_HOST"}
    assert head[placing.FILES] == f"{before.value(placing.FILES)}:{placing.OVERLAY}"
    assert (head[placing.COUNT], follower[placing.RANK]) == ("2", "1")


def test_files_of_ones_own_stay_and_the_overlay_is_added_once() -> None:
    own = f"compose/base.yaml:compose/settings.yaml:compose/cpu.yaml:{placing.OVERLAY}:mine.yaml"
    (node,) = placing.nodes(demo(**ADDRESS, COMPOSE_FILE=own), [Host("a")])
    assert node.value(placing.FILES) == own


def test_a_model_that_so_many_hosts_cannot_share_is_refused() -> None:
    assert placing.problems(demo(VLLM_TP_SIZE="2"), 2) == []
    (problem,) = placing.problems(demo(VLLM_TP_SIZE="3"), 2)
    assert "which 2 nodes cannot share" in problem.sentence
    (problem,) = placing.problems(demo(BERTH_NODES="4"), 2)
    assert "BERTH_NODES=4" in problem.sentence


def test_a_service_on_the_heads_loopback_is_reached_through_ssh() -> None:
    ready = placing.ready(demo(), Host("a"), "10.0.0.1")
    assert "ssh -N -L 9000:127.0.0.1:9000 a" in ready.words
    assert ready.facts["endpoint"] == ""
    opened = placing.ready(demo(BIND_ADDR="0.0.0.0", LLM_API_KEYS_FILE="/etc/keys"), Host("a"), "10.0.0.1")
    assert "ssh -N" not in opened.words
    assert opened.facts["endpoint"] == "http://10.0.0.1:9000"
    assert opened.locked


def test_what_is_remembered_is_recalled_until_it_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "run" / "hosts.json"
    assert memory.recall(file) is None
    memory.remember(memory.Deployed(("a", "b"), "berth", "10.0.0.1"), file)
    assert memory.recall(file) == memory.Deployed(("a", "b"), "berth", "10.0.0.1")
    file.write_text("{")
    assert memory.recall(file) is None
    memory.forget(file)
    memory.forget(file)


def test_hosts_choose_their_runtime_and_exclude_another() -> None:
    for wanted, request in (
        ("compose", runtimes.Request(hosts=("a",))),
        (None, runtimes.Request(hosts=("a",), time_s=60)),
    ):
        with pytest.raises(BerthError) as refused:
            runtimes.choose(wanted, request)
        assert "exclude each other" in str(refused.value)
        assert refused.value.exit_code == Exit.BAD_SETTING


class Told:
    """An engine's log that has said nothing yet, and a terminal."""

    phase = Phase("loading")

    def show(self, phase: Phase) -> None:
        """Nothing is shown."""


def waited(monkeypatch: pytest.MonkeyPatch, *seen: object, patience_s: float = 60.0, timeout_s: float = 60.0) -> object:
    """What the wait comes to where the hosts answer like this, one look after the other; an error is no answer."""
    monkeypatch.setattr(served, "POLL_S", 0.0)
    monkeypatch.setattr(served, "PATIENCE_S", patience_s)
    looks = iter(seen)

    def look() -> tuple[bool, tuple[Host, Problem] | None]:
        found = next(looks)
        if isinstance(found, BerthError):
            raise found
        return found  # type: ignore[return-value]

    told: Any = Told()
    return served.wait(look, told, told, timeout_s)


SILENT = failed("gpu-2: its Docker Engine broke off", "try it again")
ENDED = (Host("gpu-2"), Problem("gpu-2: the engine ended with exit code 1", "scripts/berth logs engine"))


def test_a_host_that_does_not_answer_for_a_moment_ends_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waited(monkeypatch, (False, None), SILENT, SILENT, (False, None), SILENT, (True, None)) is None


def test_a_host_that_stays_silent_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BerthError, match="broke off"):
        waited(monkeypatch, (False, None), SILENT, patience_s=0.0)


def test_an_engine_that_ended_ends_it_unless_all_serves_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waited(monkeypatch, (False, None), (False, ENDED)) == ENDED
    assert waited(monkeypatch, (True, ENDED)) is None


def test_the_wait_for_hosts_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BerthError, match="the last phase was: loading") as caught:
        waited(monkeypatch, (False, None), timeout_s=-1.0)
    assert caught.value.exit_code == Exit.NOT_READY


def test_what_cannot_be_stopped_does_not_hide_why_it_had_to_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = Runtime(runtimes.Request(hosts=("gpu-1", "gpu-2")))
    monkeypatch.setattr(runtime, "_stop", lambda host: (_ for _ in ()).throw(failed(f"{host.name} is gone", "wait")))
    runtime._give_up(Progress())
    said = capsys.readouterr().err
    assert "gpu-1 is gone" in said
    assert "gpu-2 is gone" in said
