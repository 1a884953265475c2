"""The same verbs from a machine outside the cluster, which has SSH to the login node and no Slurm."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.operators import DEMO, SCRATCH, Operator, complaint
from tests.slurm.tunnels import Laptop
from tests.support.slurm import ROOT, Checkout, Lab, User

pytestmark = pytest.mark.slurm


@pytest.fixture
def laptop(tmp_path: Path, cluster: Lab, alice: User, checkout: Checkout, stub_sif: str) -> Iterator[Laptop]:
    """This machine, whose site file names the login node."""
    Operator(cluster, alice, checkout, stub_sif).prepare()
    made = Laptop.make(tmp_path / "laptop", cluster, SITE_SCRATCH=SCRATCH, SITE_TIME="10:00")
    shutil.copytree(ROOT / "apptainer", made.root / "apptainer", ignore=shutil.ignore_patterns("site.env"))
    yield made
    made.berth("down", "--runtime", "slurm", "--all")
    made.remove()


def test_up_look_ask_and_stop_through_ssh(laptop: Laptop, alice: User) -> None:
    done = laptop.berth("up", *DEMO, "--name", "far", "-d", "--json")
    assert done.returncode == 0, done.stderr
    started = json.loads(done.stdout)
    curl = ["bash", "-c", started["curl"]]
    answer = json.loads(subprocess.run(curl, capture_output=True, check=True).stdout)
    assert answer["choices"][0]["message"]["content"]
    (row,) = json.loads(laptop.berth("ls", "--json").stdout)["jobs"]
    assert (row["name"], row["state"], row["job"]) == ("far", "ready", started["jobs"][0])
    assert "Application startup complete" in laptop.berth("logs", "engine", "--name", "far").stdout
    assert json.loads(laptop.berth("status", "--name", "far", "--json").stdout)["ready"]
    modes = alice.say("find", f"{SCRATCH}/berth/deployments/far", "-maxdepth", "1", "-printf", "%f %m\n").splitlines()
    assert {"api_key 600", "job.env 600", "far 700"} <= set(modes)
    assert laptop.berth("stop", "far").stdout == f"stopped job {row['job']}\n"
    assert alice.wait_until_ended(row["job"]) == "COMPLETED"


def test_a_dry_run_shows_the_command_as_ssh_runs_it(laptop: Laptop) -> None:
    line = laptop.berth("up", *DEMO, "--dry-run").stdout
    assert line.startswith("ssh alice@login 'sbatch --parsable --job-name=berth-demo ")


def test_a_login_node_out_of_reach(laptop: Laptop) -> None:
    site = laptop.root / "far.env"
    site.write_text(f"SITE_LOGIN=alice@nowhere.invalid\nSITE_SCRATCH={SCRATCH}\n")
    code, sentence, hint = complaint(laptop.berth("ls", "--site", str(site)))
    assert code == 3
    assert sentence.startswith("the login node alice@nowhere.invalid cannot be reached: ")
    assert hint.endswith("ssh -o BatchMode=yes alice@nowhere.invalid true")


def test_a_machine_without_sbatch_and_without_login_node(laptop: Laptop) -> None:
    site = laptop.root / "here.env"
    site.write_text(f"SITE_SCRATCH={laptop.root}\n")
    code, sentence, hint = complaint(laptop.berth("up", *DEMO, "--site", str(site)))
    assert (code, sentence) == (3, "no sbatch on PATH: this is no login node of a Slurm cluster")
    assert "SITE_LOGIN" in hint
