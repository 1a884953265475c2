"""The cluster that the other tests stand on is a real one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.slurm import LAB, NODES, Checkout, Lab, User

pytestmark = pytest.mark.slurm


def test_a_job_runs_on_two_nodes_and_is_accounted_for(alice: User) -> None:
    hosts = alice.say("srun", "--job-name=lab-two", "--nodes=2", "hostname").split()
    assert len(set(hosts)) == 2
    assert set(hosts) <= set(NODES)
    accounted = alice.say("sacct", "--noheader", "-X", "--name=lab-two", "--parsable2", "--format=account,nnodes,state")
    assert accounted.splitlines()[-1] == "lab|2|COMPLETED"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--account=nobody"], "Invalid account"),
        (["--partition=nowhere"], "invalid partition"),
        (["--qos=golden"], "Invalid qos"),
        (["--time=2:00:00"], "time limit"),
        (["--gpus-per-node=9"], "node configuration is not available"),
        (["--gres=gpu:h100:1"], "node configuration is not available"),
    ],
)
def test_slurm_refuses_what_a_site_would_refuse(alice: User, options: list[str], said: str) -> None:
    done = alice("sbatch", *options, "--wrap=true", check=False)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_job_in_the_gpu_partition_gets_the_gpus_it_asked_for(alice: User) -> None:
    asked = alice.say("srun", "--partition=gpu", "--gpus-per-node=2", "printenv", "CUDA_VISIBLE_DEVICES")
    assert len(asked.split(",")) == 2


def test_ssh_opens_every_machine_without_a_question(cluster: Lab, alice: User) -> None:
    for machine in ("vm", *NODES):
        assert alice.say("ssh", "-o", "BatchMode=yes", machine, "hostname") == machine
    from_here = ["ssh", "-F", str(cluster.ssh_config), "-o", "BatchMode=yes", "login", "hostname"]
    assert subprocess.run(from_here, capture_output=True, text=True).stdout.strip() == "login"


def test_another_user_cannot_read_what_is_private(alice: User, bob: User) -> None:
    alice("bash", "-c", "umask 077; echo secret >~/private")
    assert "Permission denied" in bob("cat", "/home/alice/private", check=False).stderr


def test_the_vm_is_no_part_of_the_cluster(alice: User) -> None:
    assert "No such file" in alice("ls", "/shared", node="vm", check=False).stderr
    alice("bash", "-c", "echo mark >~/mark-of-login")
    assert "No such file" in alice("ls", "mark-of-login", node="vm", check=False).stderr


def test_the_command_line_runs_on_the_login_node(checkout: Checkout, alice: User) -> None:
    assert checkout.berth(alice, "--version").stdout.startswith("berth ")


def test_sync_follows_the_checkout_and_keeps_what_was_made_there(cluster: Lab, alice: User, tmp_path: Path) -> None:
    shutil.copytree(LAB.parent, tmp_path / "tests/lab")
    program = tmp_path / "scripts/berth"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho here\n")
    program.chmod(0o755)
    (tmp_path / ".gitignore").write_text("ignored\n")
    for name in ("old name", "ignored"):
        (tmp_path / name).write_text("x")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    target = f"/shared/sync-{os.getpid()}"
    sync = [tmp_path / "tests/lab/slurm-cluster", "sync", target]
    try:
        assert subprocess.run(sync, capture_output=True, text=True, check=True).stdout == "here\n"
        alice("touch", f"{target}/made-there")
        (tmp_path / "old name").rename(tmp_path / "new name")
        subprocess.run(sync, capture_output=True, check=True)
        found = alice.say("ls", "-A", target).splitlines()
        assert sorted(found) == [".berth", ".gitignore", "made-there", "new name", "scripts", "tests"]
        assert alice.say("stat", "--format=%U", f"{target}/new name") == "alice"
    finally:
        alice("rm", "-rf", target)


def test_up_again_changes_nothing(cluster: Lab) -> None:
    running = ["docker", "ps", "--quiet", "--no-trunc", "--filter", "label=berth-cluster"]
    before = subprocess.run(running, capture_output=True, text=True).stdout
    assert subprocess.run([LAB, "up"], capture_output=True, text=True).returncode == 0
    assert subprocess.run(running, capture_output=True, text=True).stdout == before
    assert len(before.split()) == 6


def test_an_ordinary_user_runs_a_sif_on_a_node(alice: User, stub_sif: str) -> None:
    check = ["apptainer", "exec", "--cleanenv", "--no-eval", stub_sif, "/opt/venv/bin/python", "-P", "-m"]
    said = alice("srun", *check, "engine.serve", "--dry-run", environ={"APPTAINERENV_LLM_VLLM_MODEL_NAME": "demo"})
    assert "/opt/venv/bin/vllm serve /opt/berth/models/demo" in said.stdout
    served = alice("srun", *check[:-1], "-c", "import llm_service, os; print(os.getuid())").stdout
    assert served.strip() == "1001"
