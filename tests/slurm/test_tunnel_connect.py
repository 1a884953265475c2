"""`berth connect` from outside the cluster, over real SSH, to jobs on a real cluster."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from berth.host.ports import is_free
from tests.slurm.tunnels import KEY, START_S, Connected, Deployment, Laptop, client, every_command_line, failures
from tests.support.slurm import Checkout, Lab, User
from tests.support.waiting import free_port, wait_until

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def deployment(cluster: Lab, alice: User) -> Iterator[Deployment]:
    """Served by one job on n1 throughout."""
    made = Deployment.make(cluster, alice)
    made.start("n1")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def laptop(cluster: Lab, deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A copy of the checkout with a site file for alice."""
    made = Laptop.make(tmp_path_factory.mktemp("laptop") / "berth", cluster, SITE_SCRATCH=deployment.scratch)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def connected(laptop: Laptop, deployment: Deployment) -> Iterator[Connected]:
    """A connection through the login node, for tests that leave it as it is."""
    with laptop.connected(deployment.name) as made:
        yield made


@pytest.fixture
def alone(laptop: Laptop) -> Iterator[Laptop]:
    """A second laptop, on which nothing is connected but what a test connects."""
    made = laptop.another()
    yield made
    made.remove()


def test_a_tunnel_through_the_login_node_leads_to_the_job(
    laptop: Laptop, connected: Connected, deployment: Deployment
) -> None:
    job = deployment.jobs()[0]
    assert connected.ask() == (200, f"job {job}")
    printed = subprocess.run(["sh", "-c", connected.facts["curl"]], capture_output=True, text=True, timeout=30)
    assert f"job {job}" in printed.stdout
    run = connected.state()["runs"][0]
    assert "-L 127.0.0.1:" in laptop.processes("-N -L")[run["ssh"]]


def test_the_key_is_in_no_list_of_processes_and_in_no_file_that_others_read(connected: Connected) -> None:
    assert connected.ask()[0] == 200
    assert KEY not in every_command_line()
    holding = [file for file in Path(connected.facts["key_file"]).parent.rglob("*") if file.is_file()]
    holding = [file for file in holding if KEY in file.read_text(errors="replace")]
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in holding} == {
        "api_key": "0o600",
        "authorization": "0o600",
    }


def test_the_local_door_refuses_who_has_no_key(connected: Connected) -> None:
    import httpx

    for path in ("/health", "/ready", "/v1/models", "/metrics"):
        answer = httpx.get(f"{connected.facts['url']}{path}", trust_env=False, headers={"Authorization": "Bearer x"})
        assert answer.status_code == 401, path


def test_a_killed_tunnel_comes_back_and_no_request_fails(connected: Connected) -> None:
    first = connected.state()["runs"][0]["ssh"]
    with client(connected) as answers:
        wait_until(lambda: len(answers) > 3, START_S, "answers")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: connected.state()["runs"][0]["ssh"] not in (None, first), START_S, "another tunnel")
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 3, START_S, "answers through it")
    assert failures(answers) == []
    wait_until(lambda: "opened again" in connected.said, START_S, "a word about it")


@pytest.fixture
def elsewhere(laptop: Laptop) -> Iterator[Path]:
    """A second site file for the laptop."""
    file = laptop.root / "other.env"
    yield file
    file.unlink()


def test_a_jump_goes_through_the_login_node_to_the_node_itself(
    alone: Laptop, deployment: Deployment, elsewhere: Path
) -> None:
    elsewhere.write_text((alone.root / "site.env").read_text() + "SITE_TRANSPORT=jump\n")
    with alone.connected(deployment.name, BERTH_SITE=str(elsewhere)) as connected:
        assert connected.ask()[0] == 200
        assert " alice@n1 " in alone.processes("-N -L")[connected.state()["runs"][0]["ssh"]] + " "


def test_where_a_second_login_would_need_a_second_factor_the_users_own_connection_is_used(
    alone: Laptop, deployment: Deployment
) -> None:
    config = alone.root / "ssh_config"
    usual = config.read_text()
    control = f"{alone.environ['XDG_RUNTIME_DIR']}/mine"
    config.write_text(f"Host login\n    ControlPath {control}\n{usual}")
    ssh = [str(alone.root / "bin" / "ssh")]
    subprocess.run([*ssh, "-o", "ControlMaster=yes", "-fN", "alice@login"], check=True, stderr=subprocess.DEVNULL)
    try:
        config.write_text(config.read_text().replace("IdentityFile", "IdentityFile /no/such/key\n    #"))
        with alone.connected(deployment.name) as connected:
            assert connected.ask()[0] == 200
            port = int(connected.state()["runs"][0]["url"].rpartition(":")[2])
            os.kill(connected.state()["pid"], signal.SIGKILL)
            wait_until(lambda: is_free("127.0.0.1", port), START_S, "the end of the forwarding")
    finally:
        subprocess.run([*ssh, "-O", "exit", "alice@login"], stderr=subprocess.DEVNULL)


def test_a_job_that_opened_its_own_tunnel_is_reached_at_the_login_node(
    cluster: Lab, alice: User, laptop: Laptop, elsewhere: Path
) -> None:
    made = Deployment.make(cluster, alice)
    port = free_port()
    batch = (
        f"p={made.directory}/runs/$SLURM_JOB_ID/port; (until [ -s $p ]; do sleep 0.1; done; "
        f"exec ssh -N -o BatchMode=yes -R 127.0.0.1:{port}:127.0.0.1:$(cat $p) login) &"
    )
    job = made.start("n2", "--loopback", f"--login-port={port}", before=batch)
    elsewhere.write_text((laptop.root / "site.env").read_text() + "SITE_TRANSPORT=job\n")
    try:
        with laptop.connected(made.name, BERTH_SITE=str(elsewhere)) as connected:
            assert connected.ask() == (200, f"job {job}")
    finally:
        made.remove()


def test_on_the_login_node_no_tunnel_is_needed(
    cluster: Lab, alice: User, checkout: Checkout, deployment: Deployment
) -> None:
    said = {"SITE_SCRATCH": deployment.scratch}
    site = f"{deployment.directory}/site.env"
    alice("bash", "-c", 'cat >"$0"', site, stdin="".join(f"{name}={value}\n" for name, value in said.items()))
    with alice.begin(
        f"{checkout.path}/scripts/berth", "connect", deployment.name, "--site", site, cwd=checkout.path
    ) as running:
        running.wait_for("LiteLLM")
        curl = next(line for line in running.output.splitlines() if line.startswith("curl "))
        assert f"job {deployment.jobs()[0]}" in alice.say("sh", "-c", curl)
        assert "ssh -N" not in alice.say("ps", "-u", "alice", "-o", "args")
        running.signal(signal.SIGINT)
        assert running.wait() == 0
        assert f"job {deployment.jobs()[0]} runs on" in running.output


def test_a_successor_takes_over_without_a_failed_request_and_the_end_of_the_last_job_ends_it(
    cluster: Lab, alice: User, laptop: Laptop
) -> None:
    made = Deployment.make(cluster, alice)
    try:
        first = made.start("n1")
        with laptop.connected(made.name) as connected:
            with client(connected) as answers:
                wait_until(lambda: (200, f"job {first}") in answers, START_S, "an answer of the first job")
                second = made.start("n2")
                wait_until(lambda: (200, f"job {second}") in answers, START_S, "an answer of the second job")
                made.stop(first)
                alice.wait_until_ended(first)
                wait_until(lambda: len(connected.state()["runs"]) == 1, START_S, "the end of the first tunnel")
                seen = len(answers)
                wait_until(lambda: len(answers) > seen + 3, START_S, "answers of the second job alone")
            assert failures(answers) == []
            assert answers[-1] == (200, f"job {second}")
            made.stop(second)
            assert connected.process.wait(START_S) == 0
            assert f"{made.name} has no job any more: job {second} stopped" in connected.said
        gone = laptop.berth("connect", made.name)
        assert gone.returncode == 1
        assert f"{made.name} has no job any more" in gone.stderr
    finally:
        made.remove()


def test_ctrl_c_closes_the_tunnel_and_says_that_the_job_runs_on(alone: Laptop, deployment: Deployment) -> None:
    with alone.connected(deployment.name) as connected:
        connected.process.send_signal(signal.SIGINT)
        assert connected.process.wait(START_S) == 0
    assert f"job {deployment.jobs()[0]} runs on" in connected.said
    wait_until(lambda: not alone.processes(), START_S, "the end of all processes")
    assert deployment.user.state(deployment.jobs()[0]) == "RUNNING"


def test_a_detached_connection_stays_until_it_is_closed_and_keeps_its_port(
    alone: Laptop, deployment: Deployment
) -> None:
    first = alone.berth("connect", deployment.name, "-d", "--json")
    again = alone.berth("connect", deployment.name, "-d", "--json")
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert first.stdout == again.stdout
    assert alone.processes("berth.slurm.keeper")
    alone.close(deployment.name)
    wait_until(lambda: not alone.processes(), START_S, "the end of all processes")
    assert alone.berth("connect", deployment.name, "-d", "--json").stdout == first.stdout


@pytest.mark.parametrize("victim", ["keeper", "verb"])
def test_nothing_outlives_a_parent_that_is_killed(alone: Laptop, deployment: Deployment, victim: str) -> None:
    with alone.connected(deployment.name) as connected:
        pid = connected.process.pid if victim == "verb" else connected.state()["pid"]
        os.kill(pid, signal.SIGKILL)
        connected.process.wait(START_S)
        wait_until(lambda: not alone.processes(), START_S, "the end of all processes")


def test_what_cannot_be_connected_to_is_said_in_one_sentence(laptop: Laptop, deployment: Deployment) -> None:
    unknown = laptop.berth("connect", "no-such-model")
    assert unknown.returncode == 2
    assert "no-such-model: no such deployment" in unknown.stderr
    assert deployment.name in unknown.stderr
    other = Deployment.make(deployment.lab, deployment.user)
    never = laptop.berth("connect", other.name)
    assert never.returncode == 1
    assert f"{other.name} has no job any more" in never.stderr
    other.remove()


def test_a_port_that_is_taken_is_refused_and_nothing_is_started(
    alone: Laptop, deployment: Deployment, connected: Connected
) -> None:
    port = connected.facts["url"].rpartition(":")[2]
    refused = alone.berth("connect", deployment.name, "--port", port)
    assert refused.returncode == 1
    assert f"port {port} is taken by" in refused.stderr
    assert alone.processes() == {}


def test_a_login_node_that_is_away_is_said_with_its_remedy(laptop: Laptop, elsewhere: Path) -> None:
    elsewhere.write_text("SITE_LOGIN=alice@127.0.0.1\nSITE_SCRATCH=/nowhere\n")
    config = laptop.root / "bin" / "ssh"
    kept = config.read_text()
    config.write_text(kept.replace('"$@"', f'-o Port={free_port()} "$@"'))
    try:
        away = laptop.berth("connect", "demo", BERTH_SITE=str(elsewhere))
    finally:
        config.write_text(kept)
    assert away.returncode == 3
    assert "alice@127.0.0.1 cannot be reached" in away.stderr
    assert "Connection refused" in away.stderr
    assert len(away.stderr.strip().splitlines()) == 2
