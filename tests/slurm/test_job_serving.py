"""apptainer/serve.sbatch by plain sbatch: who may ask it, what reaches the engine, what it leaves alone."""

import os
import stat
from collections.abc import Iterator

import httpx
import pytest

from tests.support.slurm import Checkout, User
from tests.support.slurm_jobs import Job, Jobs
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slurm

SECRET = "hf_sesame7319"
# As a person writes them in an env file, and what vLLM must get.
HOSTILE = {
    'A_JSON={"a": 1, "b": [true, "x y"]}': '{"a": 1, "b": [true, "x y"]}',
    "A_COMMAS=a,b,C=d,e": "a,b,C=d,e",
    "A_DOLLAR='$HOME ${PATH} $(id)'": "$HOME ${PATH} $(id)",
    "A_BACKTICK=`id`": "`id`",
    "A_QUOTE=it's": "it's",
    'A_QUOTES=say "hi"': 'say "hi"',
    "A_BACKSLASH=a\\nb\\": "a\\nb\\",
    "A_BLANKS=a  b   c": "a  b   c",
    "A_HASH=a#b": "a#b",
    "A_COMMENT=a # b": "a",
    "A_UNICODE=ünïcode 漢字 🚢": "ünïcode 漢字 🚢",
    "A_GLOB=* ? [a] ~ !": "* ? [a] ~ !",
    "A_OPERATORS=a;b|c&d>e<f(g)": "a;b|c&d>e<f(g)",
    "A_COLON=/a:/b:ro": "/a:/b:ro",
}
ROUTES = ("/", "/ready", "/health", "/metrics", "/v1/models", "/v1/chat/completions", "/docs", "/openapi.json", "/x")


@pytest.fixture(scope="module")
def jobs(alice: User, checkout: Checkout, stub_sif: str) -> Jobs:
    return Jobs.make(alice, checkout, stub_sif)


@pytest.fixture(scope="module")
def job(jobs: Jobs, alice: User) -> Iterator[Job]:
    """One job for all tests here: hostile values, a poisoned ~/.local, variables that must stay outside."""
    packages = "/home/alice/.local/lib/python3.11/site-packages"
    alice("mkdir", "-p", packages)
    alice("bash", "-c", 'echo "raise SystemExit(99)" >"$0"', f"{packages}/httpx.py")
    alice("bash", "-c", 'echo "import os; os._exit(98)" >"$0"', f"{packages}/usercustomize.py")
    text = "".join(f"{line}\n" for line in HOSTILE)
    text += f'STUB_DUMP=/cache/vllm/dump\nHF_TOKEN={SECRET}\nVLLM_HF_OVERRIDES={{"a": "b c"}}\nVLLM_MAX_NUM_SEQS=7\n'
    environ = {"APPTAINERENV_LEAKED": "1", "SOMETHING_ELSE": "1", "VLLM_MAX_NUM_SEQS": "9", "NCCL_DEBUG": "INFO"}
    try:
        with jobs.serving(jobs.env(text), environ=environ) as running:
            yield running
    finally:
        alice("rm", "-rf", "/home/alice/.local/lib/python3.11")


def home(alice: User) -> str:
    return alice.say("find", "/home/alice", "-printf", "%p %s %T@\n")


def test_it_says_where_it_is(job: Job) -> None:
    said = job.wait()
    assert said["base_url"] == f"http://{said['host']}:{said['port']}"
    assert not said["host"].startswith("127.")
    assert 20000 <= said["port"] <= 31999
    assert said["job"] == said["run"] == job.id
    assert said["nodes"] == [said["node"]]
    assert (said["model"], said["device"], said["restarts"], said["login_port"]) == ("demo", "cpu", 0, None)
    assert said["ends"] - said["started"] == pytest.approx(600, abs=10)
    assert job.here.joinpath("batch.log").is_symlink()


def test_its_heart_beats_and_its_load_is_told(job: Job) -> None:
    before = job.endpoint()["heartbeat"]
    wait_until(lambda: job.endpoint()["heartbeat"] > before, 60, "a new heartbeat")
    wait_until(lambda: job.endpoint()["watch"].get("ready") is True, 60, "the watch's word")


def test_the_door_answers_who_has_the_key(job: Job) -> None:
    with job.client() as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "demo"
        body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
        assert client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_asks_for_the_key(job: Job, route: str) -> None:
    base = job.wait()["base_url"]
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert httpx.get(base + route, headers=headers, trust_env=False).status_code == 401
        assert httpx.post(base + route, headers=headers, json={}, trust_env=False).status_code == 401


def test_another_user_on_the_node_gets_nothing(job: Job, bob: User) -> None:
    said = job.wait()
    url = f"{said['base_url']}/v1/models"
    answer = bob.say("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url, node=said["node"])
    assert answer == "401"
    assert bob("cat", said["key_file"], node=said["node"], check=False).returncode != 0
    private = bob("bash", "-c", 'ls /tmp/berth-*-"$0".*', job.id, node=said["node"], check=False)
    assert "Permission denied" in private.stderr


def test_nothing_but_the_door_listens_on_the_node(job: Job, alice: User) -> None:
    said = job.wait()
    block = range(20000, 32000)
    lines = alice.say("ss", "-Hltn", node=said["node"]).splitlines()
    ours = [line.split()[3] for line in lines if int(line.split()[3].rpartition(":")[2]) in block]
    mine = [address for address in ours if 0 <= int(address.rpartition(":")[2]) - said["port"] < 8]
    assert mine == [f"{said['host']}:{said['port']}"]


def test_secrets_are_in_files_of_the_owner_alone(job: Job, alice: User) -> None:
    deployment = job.here.parents[1]
    for name in ("api_key", "hf_token"):
        assert stat.S_IMODE(deployment.joinpath(name).stat().st_mode) == 0o600
    assert deployment.joinpath("hf_token").read_text() == f"{SECRET}\n"
    assert len(job.key) >= 40
    node = job.wait()["node"]
    shown = alice.say("ps", "-eww", "-o", "args", node=node) + alice.say("scontrol", "show", "job", job.id)
    for file in deployment.rglob("*"):
        if file.is_file() and file.name not in ("api_key", "hf_token") and os.access(file, os.R_OK):
            shown += file.read_text(errors="replace")
        assert not file.is_symlink() or file.name == "batch.log"
        assert file.is_symlink() or not file.stat().st_mode & 0o077, file
    shown += alice.lab.outside(f"{job.run.split('/deployments/')[0]}/{job.id}.log").read_text()
    assert job.key not in shown
    assert SECRET not in shown


def test_values_reach_the_engine_literally(job: Job, jobs: Jobs) -> None:
    job.wait()
    environ = jobs.dump("dump")["environ"]
    for line, value in HOSTILE.items():
        assert environ[line.partition("=")[0]] == value
    argv = jobs.dump("dump")["argv"]
    assert argv[argv.index("--hf-overrides") + 1] == '{"a": "b c"}'
    assert environ["HF_TOKEN"] == SECRET
    # The door, beside the engine, reads what vLLM's own lines say of the start.
    assert environ["LLM_PHASE_FILE"] == "/tmp/s/phase.json"
    assert environ["VLLM_LOGGING_STREAM"] == "ext://engine.announce.stdout"


def test_the_shell_of_sbatch_beats_the_files_and_adds_nothing_else(job: Job, jobs: Jobs) -> None:
    job.wait()
    found = jobs.dump("dump")
    assert found["argv"][found["argv"].index("--max-num-seqs") + 1] == "9"
    assert found["environ"]["NCCL_DEBUG"] == "INFO"  # the fabric's variables are the site's
    assert not {"LEAKED", "SOMETHING_ELSE", "SLURM_JOB_ID"} & found["environ"].keys()


def test_the_engine_needs_no_hub_for_a_model_that_is_there(job: Job, jobs: Jobs) -> None:
    job.wait()
    assert jobs.dump("dump")["environ"]["HF_HUB_OFFLINE"] == "1"


def test_a_second_job_on_the_node_works_and_the_home_stays_as_it_was(job: Job, jobs: Jobs, alice: User) -> None:
    first = job.wait()
    before = home(alice)
    with jobs.serving(options=(f"--nodelist={first['node']}",)) as second, second.client() as client:
        assert second.wait()["node"] == first["node"]
        assert second.wait()["port"] != first["port"]
        assert second.key != job.key
        assert client.get("/v1/models").status_code == 200
        refused = client.get("/v1/models", headers={"Authorization": f"Bearer {job.key}"})
        assert refused.status_code == 401
    alice.wait_until_ended(second.id)
    assert home(alice) == before


def test_a_model_in_a_folder_a_store_for_reading_and_a_key_of_ones_own(
    jobs: Jobs, alice: User, checkout: Checkout
) -> None:
    folder, models = f"{jobs.store}/a model", f"{jobs.store}/others"
    alice("cp", "-r", f"{checkout.path}/models/demo", folder)
    alice("mkdir", "-m", "0500", models)
    site = jobs.write("shared.env", f"SITE_SCRATCH={jobs.store.removesuffix('/berth')}\nSITE_MODELS={models}\n")
    text = f"LLM_VLLM_MODEL_NAME={folder}\nVLLM_API_KEY=open-sesame-7319\nSTUB_DUMP=/cache/vllm/folder\n"
    with jobs.serving(jobs.env(text), script_options=("--site", site)) as job, job.client() as client:
        assert job.key == "open-sesame-7319"
        assert client.get("/v1/models").json()["data"][0]["id"] == folder
        found = jobs.dump("folder")
        assert found["argv"][2] == folder
        assert found["environ"]["HF_HUB_OFFLINE"] == "1"
        assert "VLLM_API_KEY" not in found["environ"]  # nobody but the door asks for it
