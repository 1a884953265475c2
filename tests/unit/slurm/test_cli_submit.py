"""What is submitted: sbatch's options, the files of the deployment, and what is refused before that."""

from collections.abc import Callable
from pathlib import Path

import pytest

from berth import deployment as deployments
from berth.deployment import Deployment, slug
from berth.errors import BerthError, Exit
from berth.runtimes import Request
from berth.slurm import refusals, rendering, submit
from berth.slurm.site import Site
from berth.slurm.store import Store
from tests.support.fake_slurm import FakeCluster

Plan = Callable[..., submit.Plan]
SINFO = (
    "cpu*|1:00:00|3|(null)|up\ngpu|12:00:00|2|gpu:a100:4(S:0-1)|up\ngpu|12:00:00|1|gpu:a100:8|up\nold|1:00|9||down\n"
)


def resolve(place: Path, device: str = "cpu", shell: dict[str, str] | None = None, **lines: str) -> Deployment:
    """A deployment whose env file says this."""
    (place / "env").mkdir(exist_ok=True)
    said = {"LLM_DEVICE": device, "LLM_VLLM_MODEL_NAME": "meta-llama/Llama-3.1-8B", **lines}
    (place / "env" / f"{device}.env").write_text("".join(f"{name}={value}\n" for name, value in said.items()))
    return deployments.resolve([], device, shell or {}, place)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """`submit.plan` for a device, a request, a site and the lines of an env file."""

    def make(
        device: str = "cpu", request: Request | None = None, site: Site | None = None, **lines: str
    ) -> submit.Plan:
        store = Store(FakeCluster(sinfo=SINFO), site or Site(scratch="/scratch/me"))
        return submit.plan(resolve(tmp_path, device, **lines), request or Request(), store)

    return make


def test_the_site_and_the_request_become_options(plan: Plan) -> None:
    site = Site(
        scratch="/s", account="a", partition="p", qos="q", constraint="c&d", cpus_per_task="8", mem="64G",
        time="4:00:00", sbatch="--exclusive --comment='two words'",
    )  # fmt: skip
    argv = plan(site=site, request=Request(name="mine", hold=True)).argv(0, [])
    assert argv[:2] == ["sbatch", "--parsable"]
    for word in (
        *("--job-name=berth-mine", "--nodes=1", "--ntasks-per-node=1", "--account=a", "--partition=p", "--qos=q"),
        *("--constraint=c&d", "--cpus-per-task=8", "--mem=64G", "--exclusive", "--comment=two words"),
        *("--time=04:00:00", "--hold", "--chdir=/s/berth/deployments/mine"),
    ):
        assert word in argv
    place = "/s/berth/deployments/mine"
    script = [f"{place}/job/serve.sbatch", "--deployment", place, "--site", f"{place}/site.env"]
    assert argv[-8:] == [*script, "--sif", "/s/berth/sif/vllm-cpu.sif", f"{place}/job.env"]
    assert not [word for word in argv if "gpu" in word]


def test_without_a_walltime_the_partitions_own_holds(plan: Plan) -> None:
    argv = plan().argv(0, [])
    assert not [word for word in argv if word.startswith("--time")]


@pytest.mark.parametrize(
    ("lines", "nodes", "gpus"),
    [
        ({}, 1, 1),
        ({"VLLM_TP_SIZE": "4"}, 1, 4),
        ({"VLLM_TENSOR_PARALLEL_SIZE": "8", "VLLM_PP_SIZE": "2"}, 2, 8),
        ({"VLLM_TP_SIZE": "2", "VLLM_DATA_PARALLEL_SIZE": "2"}, 1, 4),
        ({"VLLM_TP_SIZE": "2", "BERTH_GPUS_PER_NODE": "4"}, 1, 4),
        ({"VLLM_TP_SIZE": "8", "BERTH_NODES": "4"}, None, 2),
    ],
)
def test_gpus_of_a_node_are_the_ranks_over_the_nodes(
    plan: Plan, lines: dict[str, str], nodes: int | None, gpus: int
) -> None:
    made = plan("cuda", Request(nodes=nodes), **lines)
    assert f"--gpus-per-node={gpus}" in made.argv(0, [])
    assert plan("cpu", Request(nodes=nodes), **lines).gpus == 0


def test_a_site_spells_gpus_its_own_way(plan: Plan) -> None:
    site = Site(scratch="/s", gres="--gres=gpu:a100:{n} --gpu-bind=none")
    argv = plan("cuda", site=site, VLLM_TP_SIZE="4").argv(0, [])
    assert "--gres=gpu:a100:4" in argv
    assert "--gpu-bind=none" in argv


@pytest.mark.parametrize(
    ("lines", "request_", "said"),
    [
        ({"VLLM_TP_SIZE": "4"}, Request(nodes=3), "is 4, which 3 nodes cannot share evenly"),
        ({"VLLM_TP_SIZE": "8", "BERTH_GPUS_PER_NODE": "4"}, Request(), "BERTH_GPUS_PER_NODE=4 on 1 nodes is too few"),
        ({"BERTH_NODES": "two"}, Request(), "BERTH_NODES=two: not a whole number from 1"),
        ({}, Request(name="../x"), "--name ../x: not a name"),
        ({}, Request(keep_alive_s=7200), "--keep-alive needs to know how long one job may run"),
    ],
)
def test_what_does_not_fit_together(plan: Plan, lines: dict[str, str], request_: Request, said: str) -> None:
    with pytest.raises(BerthError) as caught:
        plan("cuda", request_, **lines)
    assert said in str(caught.value)
    assert caught.value.exit_code == Exit.BAD_SETTING


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("/models/My Model/", "my-model"),
        ("demo", "demo"),
        ("///", "model"),
        ("a/" + "x" * 99, "x" * 63),
    ],
)
def test_a_deployment_is_named_after_its_model(model: str, name: str) -> None:
    assert slug(model) == name


def test_replicas_are_an_array_and_successors_refer_to_the_job_before_them(plan: Plan) -> None:
    array = plan(request=Request(replicas=3, time_s=3600)).argv(0, [])
    assert "--array=0-2" in array
    assert "--output=/scratch/me/berth/deployments/llama-3.1-8b/slurm-%A_%a.log" in array
    chain = plan(request=Request(time_s=3600, keep_alive_s=7200, hold=True))
    first, second = chain.argv(0, []), chain.argv(1, ["41"])
    assert "--hold" in first
    assert "--predecessor" not in first
    assert "--hold" not in second
    assert [word for word in second if word.startswith("--dependency=after:41+")]
    assert second[second.index("--predecessor") + 1] == "41"
    assert "--array=0-1" in plan(request=Request(replicas=2)).argv(0, [])


def test_the_jobs_settings_are_literal_and_hold_no_secret(tmp_path: Path) -> None:
    deployment = resolve(
        tmp_path,
        shell={"VLLM_MAX_NUM_SEQS": "7", "HF_TOKEN": "hf_x", "HOME": "/h", "VLLM_MAX_MODEL_LEN": "9"},
        VLLM_MAX_MODEL_LEN="4096",
        VLLM_ADDITIONAL_CONFIG='\'{"a": "$b c"}\'',
        VLLM_DTYPE="",
        HF_TOKEN="",
    )
    text = submit.job_env(submit.job_settings(deployment))
    assert 'VLLM_ADDITIONAL_CONFIG={"a": "$b c"}\n' in text
    assert "VLLM_MAX_NUM_SEQS=7\n" in text
    assert "VLLM_MAX_MODEL_LEN=9\n" in text  # the shell wins
    assert "hf_x" not in text
    assert "VLLM_DTYPE" not in text  # empty means unset
    assert "HOME" not in text
    files = submit.files(deployment, Site())
    assert files["hf_token"] == (b"hf_x\n", 0o600)
    assert files["job.env"][1] == 0o600
    assert {"job/serve.sbatch", "job/lib/node.sh", "job/devices/cpu.sh"} <= files.keys()


def test_a_value_of_two_lines_is_refused(tmp_path: Path) -> None:
    deployment = resolve(tmp_path, shell={"VLLM_CHAT_TEMPLATE": "a\nb"}, VLLM_CHAT_TEMPLATE="x")
    with pytest.raises(BerthError, match="VLLM_CHAT_TEMPLATE holds a line break"):
        submit.job_settings(deployment)


def test_secrets_of_an_object_store_cannot_travel(tmp_path: Path) -> None:
    deployment = resolve(tmp_path, LLM_VLLM_MODEL_NAME="s3://bucket/model", AWS_SECRET_ACCESS_KEY="x")
    with pytest.raises(BerthError, match="AWS_SECRET_ACCESS_KEY: secrets of an object store"):
        submit.hub_token(deployment)


def test_the_token_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_y\n")
    assert submit.hub_token(resolve(tmp_path, shell={"HF_TOKEN_PATH": str(tmp_path / "token")})) == "hf_y"


def test_rendering_masks_secrets(tmp_path: Path, plan: Plan) -> None:
    deployment = resolve(tmp_path, shell={"HF_TOKEN": "hf_hidden"}, VLLM_SERVED_MODEL_NAME="hf_hidden")
    text = rendering.render(plan(), deployment, Store(FakeCluster(), Site(scratch="/s")))
    assert "hf_hidden" not in text
    assert "VLLM_SERVED_MODEL_NAME=***" in text


def test_limits_are_read_from_sinfo_of_the_partition_that_will_run_it(plan: Plan) -> None:
    def foreseen(device: str, site: Site, request: Request, **lines: str) -> list[str]:
        made = plan(device, request, site, **lines)
        return [problem.sentence for problem in refusals.foreseen(made, FakeCluster(sinfo=SINFO), site)]

    here, gpu = Site(scratch="/s", time="2:00:00"), Site(scratch="/s", partition="gpu")
    assert foreseen("cpu", here, Request()) == ["SITE_TIME: 2h is more than partition cpu allows (1h)"]
    assert foreseen("cpu", here, Request(time_s=3600)) == []
    assert foreseen("cuda", gpu, Request(time_s=7200), VLLM_TP_SIZE="8") == []
    (said,) = foreseen("cuda", gpu, Request(), VLLM_TP_SIZE="16")
    assert said == "16 GPUs on each node are asked for, and a node of partition gpu has 8"
    (said,) = foreseen("cpu", Site(scratch="/s"), Request(nodes=4), VLLM_TP_SIZE="4")
    assert said == "4 nodes are asked for, and partition cpu has 3"
    assert foreseen("cpu", Site(scratch="/s", partition="nope"), Request(time_s=10**6)) == []  # sbatch says it


@pytest.mark.parametrize(
    ("said", "sentence", "hint"),
    [
        (
            "sbatch: error: invalid partition specified: nope\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified",
            "site.env:3: SITE_PARTITION=nope: Slurm says: invalid partition specified: nope",
            "partitions here: cpu, gpu",
        ),
        (
            "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
            "site.env:2: SITE_ACCOUNT=acc: Slurm says: Invalid account or account/partition combination specified",
            "your accounts: lab",
        ),
        (
            "sbatch: error: Batch job submission failed: Requested time limit is invalid",
            "--time: Slurm says: Requested time limit is invalid",
            "--time",
        ),
        ("sbatch: error: something new", "Slurm refuses the job: something new", "--job-name="),
    ],
)
def test_slurms_refusal_names_the_line_of_the_site_file(plan: Plan, said: str, sentence: str, hint: str) -> None:
    lines = {"account": "site.env:2", "partition": "site.env:3"}
    site = Site(scratch="/s", account="acc", partition="nope", lines=lines)
    cluster = FakeCluster(sinfo=SINFO, sacctmgr="lab\n", sh="lab\n")
    problem = refusals.refused(said, plan(request=Request(time_s=60), site=site), cluster, site)
    assert problem.sentence == sentence
    assert hint in problem.hint
