"""`berth up --runtime slurm` and the verbs around it, as an ordinary user on the login node; vLLM is the stub."""

import json
import re
import signal
from collections.abc import Iterator

import pytest

from tests.slurm.operators import DEMO, SCRATCH, Operator, complaint
from tests.support.slurm import Checkout, Lab, User
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def operator(cluster: Lab, alice: User, checkout: Checkout, stub_sif: str) -> Iterator[Operator]:
    """alice, with a store of her own for these tests."""
    one = Operator(cluster, alice, checkout, stub_sif)
    one.prepare()
    one.site()
    yield one
    one.clear()


@pytest.fixture(scope="module")
def started(operator: Operator) -> dict[str, object]:
    """A deployment called one, as `berth up -d --json` tells of it; the tests below share it, in their order."""
    found: dict[str, object] = operator.said("up", *DEMO, "--name", "one", "-d")
    return found


def test_up_prints_a_curl_line_that_answers(operator: Operator, started: dict[str, object]) -> None:
    answer = json.loads(operator.user.say("bash", "-c", str(started["curl"])))
    assert answer["choices"][0]["message"]["content"]
    assert started["jobs"]
    assert operator.user.state(started["jobs"][0]) == "RUNNING"  # type: ignore[index]


def test_what_the_job_reads_is_its_owners_alone_and_holds_no_key(
    operator: Operator, started: dict[str, object]
) -> None:
    place = f"{SCRATCH}/berth/deployments/one"
    modes = operator.user.say("find", place, "-maxdepth", "1", "-printf", "%f %m\n").splitlines()
    assert {"api_key 600", "job.env 600", "site.env 600", "deployment.json 600", "one 700"} <= set(modes)
    key = operator.user.say("cat", f"{place}/api_key")
    assert len(key) >= 43  # 32 random bytes
    for file in ("job.env", "deployment.json", "site.env"):
        assert key not in operator.user.say("cat", f"{place}/{file}")
    assert key not in operator.user.say("scontrol", "show", "job", started["jobs"][0])  # type: ignore[index]


def test_ls_and_status_say_where_it_runs(operator: Operator, started: dict[str, object]) -> None:
    row = operator.row("one")
    assert (row["state"], row["model"], row["device"], row["node"][:1]) == ("ready", "demo", "cpu", "n")
    assert 20000 <= row["port"] < 32000
    assert 0 < row["time_left_s"] <= 600
    assert row["tokens_per_s"] is not None
    said = operator.said("status", "--name", "one")
    assert (said["ready"], said["state"], said["endpoint"]["service"]) == (True, "running", started["endpoint"])


def test_the_same_again_says_so_and_another_model_is_refused(operator: Operator, started: dict[str, object]) -> None:
    again = operator.berth("up", *DEMO, "--name", "one", "-d", "--json")
    assert "already running" in again.stderr
    assert json.loads(again.stdout)["jobs"] == started["jobs"]
    other = operator.settings("other", LLM_VLLM_MODEL_NAME="/shared")
    code, sentence, hint = complaint(operator.berth("up", *DEMO, "--env", other, "--name", "one", "-d"))
    assert (code, sentence) == (1, "Berth is already running under this name (slurm, cpu, demo)")
    assert "--name" in hint


def test_logs_of_engine_and_door(operator: Operator, started: dict[str, object]) -> None:
    assert "Application startup complete" in operator.berth("logs", "engine", "--name", "one").stdout
    assert "listening" in operator.berth("logs", "llm", "--name", "one").stdout
    with operator.begin("logs", "-f", "--name", "one", "-n", "1") as following:
        following.wait_for("engine-0 |")
        operator.user("bash", "-c", str(started["curl"]))
        following.wait_for("/v1/chat/completions")


def test_chat_finds_it_and_its_key(operator: Operator, started: dict[str, object]) -> None:
    assert operator.berth("chat", "What is Deep Learning?").stdout.strip()


def test_stop_ends_the_job_and_the_local_address(operator: Operator, started: dict[str, object]) -> None:
    said = operator.said("stop", "one")
    assert said["jobs"] == started["jobs"]
    assert (operator.row("one")["state"], operator.row("one")["detail"]) == ("stopped", "asked to stop")
    refused = operator.user("bash", "-c", str(started["curl"]), check=False)
    assert refused.returncode == 7  # nobody listens
    assert operator.berth("status", "--name", "one").returncode == 1
    assert operator.berth("stop", "one").stdout == "nothing was running\n"


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back(operator: Operator) -> None:
    slow = operator.settings("slow", STUB_LOAD_SECONDS="20")
    with operator.begin("up", *DEMO, "--env", slow, "--name", "two") as waiting:
        waiting.wait_for("loading weights")
        waiting.signal(signal.SIGINT)
        assert waiting.wait() == 130
        job = re.search(r"job (\d+) goes on", waiting.output)
        assert job
        assert "scripts/berth connect two" in waiting.output
        assert "scripts/berth stop two" in waiting.output
    assert operator.user.state(job[1]) == "RUNNING"
    # Starting, then ready; `status` tells the two apart by its exit code.
    assert operator.berth("status", "--name", "two").returncode == 4
    with operator.begin("up", *DEMO, "--env", slow, "--name", "two") as again:
        again.wait_for("answers at")
        again.signal(signal.SIGINT)
        again.wait()
        assert f"job {job[1]} runs on" in again.output
    assert operator.user.state(job[1]) == "RUNNING"


def test_several_at_once_need_a_name_or_all(operator: Operator) -> None:
    operator.said("up", *DEMO, "--name", "three", "-d")
    code, sentence, hint = complaint(operator.berth("down", "--runtime", "slurm"))
    assert (code, sentence[:28]) == (2, "2 deployments have jobs: thr"[:28])
    assert "--all" in hint
    assert operator.said("down", "--all")["stopped"]
    wait_until(lambda: not operator.user.say("squeue", "-h", "-n", "berth-two,berth-three"), 30, "both jobs being gone")
    assert operator.row("three")["state"] == "stopped"


def test_held_jobs_wait_with_their_reason(operator: Operator) -> None:
    said = operator.said("up", *DEMO, "--name", "held", "--hold")
    row = operator.row("held")
    assert (row["state"], row["detail"], row["job"]) == ("queued", "it is held", said["jobs"][0])
    assert operator.berth("status", "--name", "held").returncode == 4
    assert complaint(operator.berth("logs", "--name", "held"))[1] == "held is in the queue: there is no log yet"
    operator.said("stop", "held")
    assert operator.row("held")["state"] == "stopped"


def test_replicas_are_one_array_and_a_chain_waits_for_its_predecessor(operator: Operator) -> None:
    lines = operator.berth("up", *DEMO, "--replicas", "2", "--dry-run").stdout.splitlines()
    assert len(lines) == 1
    assert "--array=0-1" in lines[0]
    chain = operator.berth("up", *DEMO, "--time", "20", "--keep-alive", "40", "--dry-run").stdout.splitlines()
    assert len(chain) > 1
    assert re.search(r"--dependency=after:JOB1\+\d+ .*--predecessor JOB1 ", chain[1])


def test_render_is_what_is_submitted(operator: Operator) -> None:
    text = operator.berth("render", *DEMO, "--name", "four", environ={"HF_TOKEN": "hf_hidden"}).stdout
    command = operator.berth("up", *DEMO, "--name", "four", "--dry-run").stdout.strip()
    assert text.startswith(command)
    assert "\nLLM_VLLM_MODEL_NAME=demo\n" in text
    assert "#SBATCH --signal=B:USR1@120" in text
    assert "hf_hidden" not in text
    options = [word for word in command.split() if word.startswith("--") and word not in ("--deployment", "--site")]
    operator.user("sbatch", "--test-only", *options[1 : options.index("--sif")], "--wrap", "true")
