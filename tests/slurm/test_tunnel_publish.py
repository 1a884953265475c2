"""`berth publish`: models on the ports of a machine outside the cluster, over real SSH."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.tunnels import KEY, START_S, Deployment, Laptop, every_command_line
from tests.support.slurm import Lab, User
from tests.support.waiting import free_port, wait_until

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def laptops(
    cluster: Lab, alice: User, bob: User, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Laptop, Deployment, Laptop, Deployment]]:
    """Alice and bob, each with a deployment and a machine of their own."""
    made: list[Laptop | Deployment] = []
    for user, node in ((alice, "n1"), (bob, "n2")):
        deployment = Deployment.make(cluster, user)
        deployment.start(node)
        root = tmp_path_factory.mktemp(user.name) / "berth"
        laptop = Laptop.make(root, cluster, user.name, SITE_SCRATCH=deployment.scratch)
        made += [laptop, deployment]
    yield tuple(made)  # type: ignore[misc]
    for each in made:
        each.remove()


@pytest.fixture
def clean(laptops: tuple[Laptop, Deployment, Laptop, Deployment]) -> Iterator[None]:
    """Nothing published before and after."""
    yield
    for laptop, deployment in (laptops[:2], laptops[2:]):
        laptop.close(deployment.name)


Laptops = tuple[Laptop, Deployment, Laptop, Deployment]


def listening(user: User) -> set[int]:
    """The ports on which something listens on the VM."""
    lines = user.say("ss", "-Hltn", node="vm").splitlines()
    return {int(line.split()[3].rpartition(":")[2]) for line in lines}


@pytest.mark.usefixtures("clean")
def test_a_model_answers_on_the_other_machine_by_the_printed_line(laptops: Laptops, alice: User) -> None:
    laptop, deployment, _, _ = laptops
    done = laptop.berth("publish", deployment.name, "--to", "alice@vm", "-d")
    assert done.returncode == 0, done.stderr
    curl = next(line for line in done.stdout.splitlines() if line.startswith("curl "))
    assert f"job {deployment.jobs()[0]}" in alice.say("sh", "-c", curl, node="vm")
    assert f"demo   {deployment.name}" in done.stdout
    assert KEY not in done.stdout + every_command_line()
    files = alice.say("find", "/home/alice/.berth/published", "-type", "f", "-printf", "%m ", node="vm")
    assert set(files.split()) == {"600"}
    laptop.close(deployment.name)
    assert alice.say("ls", "/var/tmp/berth-ports", "/home/alice/.berth/published", node="vm").split() == [
        "/home/alice/.berth/published:",
        "/var/tmp/berth-ports:",
    ]


@pytest.mark.usefixtures("clean")
def test_two_users_and_two_models_never_get_the_same_port(laptops: Laptops, alice: User, bob: User) -> None:
    laptop, deployment, other, of_bob = laptops
    port = free_port()
    first = laptop.berth("publish", deployment.name, "--to", f"alice@vm:{port}", "-d")
    assert first.returncode == 0, first.stderr
    refused = other.berth("publish", of_bob.name, "--to", f"bob@vm:{port}", "-d")
    assert refused.returncode == 1
    assert f"port {port} of bob@vm is taken: demo, published by" in refused.stderr
    assert "Traceback" not in refused.stderr
    second = other.berth("publish", of_bob.name, "--to", "bob@vm", "-d")
    assert second.returncode == 0, second.stderr
    assert deployment.name in second.stdout, "the table shows what others publish"
    curl = next(line for line in second.stdout.splitlines() if line.startswith("curl "))
    assert f"job {of_bob.jobs()[0]}" in bob.say("sh", "-c", curl, node="vm")
    more = Deployment.make(laptop.lab, alice)
    try:
        more.start("n1")
        same = laptop.berth("publish", more.name, "--to", f"alice@vm:{port}", "-d")
        assert same.returncode == 1
        assert "is taken" in same.stderr
        assert laptop.processes("berth.slurm.keeper"), "the first goes on"
        assert len(laptop.processes("berth.slurm.keeper")) == 1, "the refused one left nothing"
    finally:
        more.remove()


@pytest.mark.usefixtures("clean")
def test_what_was_killed_is_reclaimed_and_the_port_is_the_same(laptops: Laptops, alice: User) -> None:
    laptop, deployment, _, _ = laptops
    port = free_port()
    assert laptop.berth("publish", deployment.name, "--to", f"alice@vm:{port}", "-d").returncode == 0
    os.kill(next(iter(laptop.processes("berth.slurm.keeper"))), signal.SIGKILL)
    wait_until(lambda: port not in listening(alice), START_S, "the end of the tunnel")
    again = laptop.berth("publish", deployment.name, "--to", f"alice@vm:{port}", "-d")
    assert again.returncode == 0, again.stderr
    assert port in listening(alice)


@pytest.mark.usefixtures("clean")
def test_a_killed_reverse_tunnel_comes_back_on_the_same_port(laptops: Laptops, alice: User) -> None:
    laptop, deployment, _, _ = laptops
    port = free_port()
    assert laptop.berth("publish", deployment.name, "--to", f"alice@vm:{port}", "-d").returncode == 0
    first = set(laptop.processes("-N -R"))
    os.kill(first.pop(), signal.SIGKILL)
    wait_until(lambda: set(laptop.processes("-N -R")) - first, START_S, "another ssh")
    wait_until(lambda: port in listening(alice), START_S, "its port")


@pytest.mark.usefixtures("clean")
def test_ctrl_c_takes_the_model_away_and_the_job_runs_on(laptops: Laptops, alice: User, tmp_path: Path) -> None:
    laptop, deployment, _, _ = laptops
    port = free_port()
    with open(tmp_path / "out", "w") as out:
        words = laptop.command("publish", deployment.name, "--to", f"alice@vm:{port}")
        process = subprocess.Popen(words, cwd=laptop.root, env=laptop.environ, stdout=out, stderr=out)
    wait_until(lambda: "LiteLLM" in (tmp_path / "out").read_text(), START_S, "what to run there")
    process.send_signal(signal.SIGINT)
    assert process.wait(START_S) == 0
    assert port not in listening(alice)
    assert deployment.user.state(deployment.jobs()[0]) == "RUNNING"
    wait_until(lambda: not laptop.processes(), START_S, "the end of all processes")


@pytest.mark.parametrize(
    ("to", "code", "said"),
    [
        ("alice@vm:99999", 2, "not a machine and a port"),
        ("alice@vm:x", 2, "not a machine and a port"),
        ("-oProxyCommand=evil", 2, "not a machine and a port"),
        ("alice@no-such-machine.invalid", 3, "no-such-machine.invalid cannot be reached"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_in_one_sentence(laptops: Laptops, to: str, code: int, said: str) -> None:
    laptop, deployment, _, _ = laptops
    done = laptop.berth("publish", deployment.name, f"--to={to}", "-d")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    wait_until(lambda: not laptop.processes(), START_S, "the end of all processes")
