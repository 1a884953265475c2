"""What cannot be: one sentence, the remedy and the documented exit code, against a real Slurm."""

from collections.abc import Iterator

import pytest

from tests.slurm.operators import DEMO, SCRATCH, Operator, complaint
from tests.support.slurm import Checkout, Lab, User

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def operator(cluster: Lab, alice: User, checkout: Checkout, stub_sif: str) -> Iterator[Operator]:
    """alice, with a store of her own for these tests."""
    one = Operator(cluster, alice, checkout, stub_sif)
    one.prepare()
    one.site()
    yield one
    one.clear()


@pytest.mark.parametrize(
    ("lines", "sentence", "hint"),
    [
        ({"SITE_PARTITION": "nope"}, "SITE_PARTITION=nope: Slurm says: invalid partition specified: nope", "cpu, gpu"),
        ({"SITE_ACCOUNT": "nope"}, "SITE_ACCOUNT=nope: Slurm says: Invalid account", "your accounts: lab"),
        ({"SITE_QOS": "nope"}, "SITE_QOS=nope: Slurm says: Invalid qos", "sacctmgr"),
        ({"SITE_CONSTRAINT": "nope"}, "SITE_CONSTRAINT=nope: Slurm says: Invalid feature", "sinfo"),
        ({"SITE_MEM": "900G"}, "SITE_MEM=900G: Slurm says: Memory", "sinfo"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_slurm_refuses_is_told_in_its_words_with_the_line_of_the_site_file(
    operator: Operator, lines: dict[str, str], sentence: str, hint: str
) -> None:
    site = operator.site("wrong", **lines)
    code, said, remedy = complaint(operator.berth("up", *DEMO, "--name", "no", "-d", site=site))
    assert (code, said[: len(site) + 4 + len(sentence)]) == (2, f"{site}:3: {sentence}")
    assert hint in remedy
    assert operator.user.say("squeue", "-h", "-n", "berth-no") == ""


@pytest.mark.parametrize(
    ("words", "sentence", "hint"),
    [
        (("--time", "9:00:00"), "--time: 9h is more than partition cpu allows (1h)", "--keep-alive"),
        (("--nodes", "3"), "is 1, which 3 nodes cannot share evenly", "VLLM_TP_SIZE"),
        (("--name", "a/b"), "--name a/b: not a name for a deployment", "letters"),
    ],
)
def test_what_no_node_can_give_is_refused_before_slurm_is_asked(
    operator: Operator, words: tuple[str, ...], sentence: str, hint: str
) -> None:
    code, said, remedy = complaint(operator.berth("up", *DEMO, "-d", *words))
    assert code == 2
    assert sentence in said
    assert hint in remedy


def test_more_gpus_than_a_node_has(operator: Operator) -> None:
    site = operator.site("gpus", SITE_PARTITION="gpu")
    wide = operator.settings("wide", LLM_VLLM_MODEL_NAME="demo", VLLM_TP_SIZE="16")
    words = ("up", "--runtime", "slurm", "--device", "cuda", "--env", wide, "-d")
    code, said, hint = complaint(operator.berth(*words, site=site))
    assert (code, said) == (2, "16 GPUs on each node are asked for, and a node of partition gpu has 8")
    assert "--nodes" in hint
    two = operator.berth(*words, "--nodes", "2", "--dry-run", site=site).stdout
    assert "--nodes=2" in two
    assert "--gpus-per-node=8" in two


def test_an_image_that_is_missing_or_for_another_device(operator: Operator) -> None:
    words = ("up", "--runtime", "slurm", "--device", "cuda", "--env", "env/models/demo.env", "-d")
    code, said, hint = complaint(operator.berth(*words))
    place = f"{SCRATCH}/berth/sif/vllm-cuda.sif"
    assert (code, said, hint) == (3, f"there is no image {place}", "make it: scripts/berth sif cuda")
    operator.user("ln", "-s", operator.sif, place)
    try:
        code, said, hint = complaint(operator.berth(*words))
    finally:
        operator.user("rm", place)
    assert (code, said) == (3, f"{place} is an image for cpu, not for cuda")
    assert "scripts/berth sif cuda" in hint


def test_a_model_store_that_cannot_be_read(operator: Operator) -> None:
    operator.user("bash", "-c", 'mkdir -p "$0"; chmod 0 "$0"', f"{SCRATCH}/closed")
    site = operator.site("closed-site", SITE_MODELS=f"{SCRATCH}/closed")
    code, said, hint = complaint(operator.berth("up", *DEMO, "-d", site=site))
    assert (code, said) == (3, f"{site}:3: SITE_MODELS={SCRATCH}/closed: not a directory that you can read")
    assert "rx" in hint


def test_names_that_nobody_knows(operator: Operator) -> None:
    site = operator.site("typo", SITE_PARTITON="cpu")
    code, said, hint = complaint(operator.berth("ls", site=site))
    assert (code, hint) == (2, "did you mean SITE_PARTITION?")
    assert said == f"{site}:3: SITE_PARTITON: no such name in a site file"
    operator.said("up", *DEMO, "--name", "known", "--hold")
    for verb in (("stop", "knwon"), ("status", "--name", "knwon"), ("logs", "--name", "knwon")):
        code, said, hint = complaint(operator.berth(*verb))
        assert (code, said, hint) == (2, "knwon: no such deployment", "did you mean known?")
    operator.said("stop", "known")


def test_a_job_that_fails_tells_why_and_leaves_nothing(operator: Operator) -> None:
    broken = operator.settings("broken", STUB_EXIT="1", STUB_SAY="Traceback:\\nValueError: the weights are upside down")
    done = operator.berth("up", *DEMO, "--env", broken, "--name", "broken", "--time", "10", "--keep-alive", "15", "-d")
    code, said, hint = complaint(done)
    assert code == 1
    assert "the weights are upside down" in said
    assert "scripts/berth logs" in hint
    assert operator.user.say("squeue", "-h", "-n", "berth-broken") == ""
    row = operator.row("broken")
    assert row["state"] == "failed"
    assert "the weights are upside down" in row["detail"]
    status = operator.berth("status", "--name", "broken")
    assert status.returncode == 1
    assert "the weights are upside down" in status.stdout


def test_out_of_memory_names_the_setting_to_change(operator: Operator) -> None:
    text = "Traceback:\\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    broken = operator.settings("memory", STUB_EXIT="1", STUB_SAY=text)
    code, _, hint = complaint(operator.berth("up", *DEMO, "--env", broken, "--name", "memory", "-d"))
    assert code == 2
    assert "VLLM_" in hint


def test_a_job_that_is_gone_or_silent_is_told_from_one_that_works(operator: Operator) -> None:
    """Its node's power is cut: nobody is left who could write `failed`."""
    job = operator.said("up", *DEMO, "--name", "gone", "-d")["jobs"][0]
    operator.user.cancel(job)
    operator.user.wait_until_ended(job)
    place = f"{SCRATCH}/berth/deployments/gone/runs/{job}/endpoint.json"
    operator.user("sed", "-i", 's/"state":"[a-z]*"/"state":"ready"/; s/"heartbeat":[0-9]*/"heartbeat":1/', place)
    row = operator.row("gone")
    assert (row["state"], row["detail"]) == ("stopped", "it was cancelled")
    code, said, hint = complaint(operator.berth("connect", "gone", "-d"))
    assert code == 1
    assert "has no job any more" in said
    assert "scripts/berth up" in hint


def test_not_ready_in_time_leaves_the_job(operator: Operator) -> None:
    slow = operator.settings("hang", STUB_HANG="loading")
    code, said, hint = complaint(
        operator.berth("up", *DEMO, "--env", slow, "--name", "hang", "-d", "--timeout", "5", timeout=180)
    )
    assert code == 4
    assert "not ready within 5 s of its start" in said
    assert "scripts/berth stop hang" in hint
    assert operator.row("hang")["state"] == "starting"
    operator.said("stop", "hang", timeout=180)


def test_doctor_finds_what_the_site_file_names_wrongly(operator: Operator) -> None:
    assert operator.berth("doctor", "--runtime", "slurm", "--device", "cpu").returncode == 0
    site = operator.site("sick", SITE_PARTITION="nope", SITE_SCRATCH="/proc/nowhere")
    done = operator.berth("doctor", "--runtime", "slurm", site=site)
    assert done.returncode == 3
    assert "NO  partition" in done.stdout
    assert "NO  store writable" in done.stdout
    assert "partitions here: cpu, gpu" in done.stdout
