"""How a job of serve.sbatch ends: asked to, killed, or because something is wrong; always with a word."""

import threading
from collections.abc import Callable

import pytest

from tests.support.slurm import Checkout, User
from tests.support.slurm_jobs import Job, Jobs
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slurm

SLOW = "STUB_PIECES=12\nSTUB_PIECE_SECONDS=0.3\n"


@pytest.fixture(scope="module")
def jobs(alice: User, checkout: Checkout, stub_sif: str) -> Jobs:
    return Jobs.make(alice, checkout, stub_sif)


def kill(job: Job, pattern: str, variable: str) -> None:
    """Kill the process of this job that the pattern finds on its node: it has that variable in its environment."""
    script = 'for pid in $(pgrep -u alice -f "$1"); do grep -qxz "$0" /proc/$pid/environ && kill -9 $pid && exit; done'
    job.user("bash", "-c", f"{script}; exit 1", variable, pattern, node=job.wait()["node"])


def leftovers(job: Job) -> str:
    node = job.endpoint()["node"]
    files = job.user.say("bash", "-c", 'ls -d /tmp/berth-*-"$0".* 2>/dev/null; true', job.id, node=node)
    return files + job.user.say("bash", "-c", 'ps -eo args | grep -F "/$0/" | grep -v grep; true', job.id, node=node)


@pytest.mark.parametrize(("signal", "reason"), [("TERM", "asked to stop"), ("USR1", "the time limit is near")])
def test_an_answer_that_runs_is_finished_before_it_stops(jobs: Jobs, signal: str, reason: str) -> None:
    with jobs.serving(jobs.env(SLOW)) as job, job.client() as client:
        body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
        begun = threading.Event()
        lines: list[str] = []

        def ask() -> None:
            with client.stream("POST", "/v1/chat/completions", json=body) as reply:
                for line in reply.iter_lines():
                    lines.append(line)
                    begun.set()

        asking = threading.Thread(target=ask)
        asking.start()
        assert begun.wait(30)
        job.signal(signal)
        assert job.wait("draining")["reason"] == reason
        asking.join(60)
        assert "data: [DONE]" in lines
        assert job.wait("stopped")["reason"] == reason
        assert job.exit_code() == "0:0"
        assert not leftovers(job)


@pytest.mark.parametrize("loads", [True, False], ids=["while it loads", "before"])
def test_a_job_that_is_not_ready_stops_at_once(jobs: Jobs, loads: bool) -> None:
    job = jobs.submit(jobs.env("STUB_LOAD_SECONDS=300\n"))
    log = job.here / "engine-0.log"
    wait_until(lambda: bool(job.endpoint()), 60, "a first word")
    if loads:
        wait_until(lambda: log.exists() and "Starting to load" in log.read_text(), 60, "the engine")
    job.signal("TERM")
    assert job.wait("stopped")["reason"] == "asked to stop"
    assert job.exit_code() == "0:0"
    assert not leftovers(job)


def test_scancel_alone_also_ends_with_a_word_and_leaves_nothing(jobs: Jobs, alice: User) -> None:
    with jobs.serving() as job:
        alice("scancel", job.id)
        job.wait("stopped")
        alice.wait_until_ended(job.id)
        wait_until(lambda: not leftovers(job), 30, "nothing being left")


def test_a_killed_engine_fails_the_job_with_its_node(jobs: Jobs) -> None:
    with jobs.serving() as job:
        kill(job, "stub_vllm", f"VLLM_PORT={job.wait()['port'] + 2}")
        said = job.wait("failed")
        assert said["reason"].startswith(f"the engine on {said['node']} (rank 0) was killed by signal 9")
        assert job.exit_code() == "137:0"
        assert not leftovers(job)


def test_a_step_that_is_ended_from_outside_fails_the_job(jobs: Jobs, alice: User) -> None:
    with jobs.serving() as job:
        alice("scancel", "--signal=KILL", f"{job.id}.0")
        assert "ended from outside" in job.wait("failed")["reason"]


def test_a_door_that_dies_is_started_again(jobs: Jobs) -> None:
    with jobs.serving() as job, job.client() as client:
        kill(job, "python -P -m llm_service", f"LLM_USVC_PORT={job.wait()['port']}")

        def answers() -> bool:
            try:
                return client.get("/v1/models").status_code == 200
            except Exception:
                return False

        wait_until(lambda: "started anew" in (job.here.parents[3] / f"{job.id}.log").read_text(), 30, "a new door")
        wait_until(answers, 30, "an answer of the new door")
        assert job.endpoint()["state"] == "ready"


WRONG: dict[str, tuple[str, str, str]] = {
    "a line that Compose would read otherwise": ("A=1\nB=$HOME\n", ".env:2: B: Compose would expand the $", "64:0"),
    "a setting that does not exist": ("VLLM_MAX_NUM_SEQ=4\n", "VLLM_MAX_NUM_SEQ: no such setting", "2:0"),
    "an unknown device": ("LLM_DEVICE=abacus\n", "LLM_DEVICE=abacus: no such device", "64:0"),
    "another device's image": ("LLM_DEVICE=hpu\n", "berth.device=cpu, not hpu", "66:0"),
    "a model that is not there": ("LLM_VLLM_MODEL_NAME=/no/model\n", "/no/model is not there", "64:0"),
    "what vLLM says": (
        "STUB_SAY=RuntimeError: the sky falls\\nRuntimeError: Engine core initialization failed. See root cause.\n"
        "STUB_EXIT=3\n",
        "RuntimeError: the sky falls",
        "3:0",
    ),
}


@pytest.fixture(scope="module")
def failed(jobs: Jobs) -> Callable[[str], Job]:
    """All at once, since each is a job."""
    submitted = {what: jobs.submit(jobs.env(text)) for what, (text, _, _) in WRONG.items()}
    return submitted.__getitem__


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_a_sentence(failed: Callable[[str], Job], what: str) -> None:
    _, sentence, code = WRONG[what]
    job = failed(what)
    reason = job.wait("failed")["reason"]
    assert sentence in reason
    assert "\n" not in reason
    assert job.exit_code() == code


def test_a_missing_image_is_said_with_the_remedy(jobs: Jobs) -> None:
    job = jobs.submit(script_options=("--sif", "/shared/sif/none.sif"))
    assert job.wait("failed")["reason"] == "there is no image /shared/sif/none.sif (make it: berth sif cpu)"


def test_two_nodes_for_one_rank_are_refused(jobs: Jobs) -> None:
    job = jobs.submit(options=("--nodes=2",))
    assert "2 nodes for 1 ranks" in job.wait("failed")["reason"]


def test_an_interface_that_no_node_has_is_named(jobs: Jobs, checkout: Checkout) -> None:
    site = jobs.write("odd-site.env", f"SITE_SCRATCH={jobs.store.removesuffix('/berth')}\nSITE_INTERFACE=ib7\n")
    one = jobs.submit(script_options=("--site", site))
    two = jobs.submit(jobs.env("VLLM_TP_SIZE=2\n"), options=("--nodes=2",), script_options=("--site", site))
    for job in (one, two):
        assert "ib7" in job.wait("failed")["reason"]
        assert job.exit_code() == "65:0"


def test_a_job_that_slurm_starts_again_begins_anew(jobs: Jobs, alice: User) -> None:
    with jobs.serving() as job:
        first = job.wait()
        alice("scontrol", "requeue", job.id)
        wait_until(lambda: job.endpoint()["restarts"] == 1, 180, "the second start")
        again = job.wait()
        assert again["started"] > first["started"]
        with job.client() as client:
            assert client.get("/v1/models").status_code == 200
