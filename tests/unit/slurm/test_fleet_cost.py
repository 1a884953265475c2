"""What jobs used: sacct's accounts joined with the tokens that the jobs counted."""

from pathlib import Path

import pytest

from berth.errors import BerthError
from berth.slurm import cost
from tests.support import fake_slurm
from tests.support.fake_slurm import NO_ACCOUNTS

GPUS = "billing=8,cpu=8,gres/gpu:a100=4,gres/gpu=4,mem=1G,node=1"


def test_gpu_hours_and_tokens_per_gpu_hour(tmp_path: Path):
    store = fake_slurm.store(tmp_path, sacct=f"12|COMPLETED|7200|{GPUS}|1\n")
    fake_slurm.deployment(store, "llama", "12")
    fake_slurm.run(store, "llama", "12", state="stopped", watch={"prompt_tokens": 6000, "generation_tokens": 2000})
    (use,) = cost.cost(store, "llama").uses
    assert (use.unit, use.unit_hours, use.tokens_per_hour) == ("GPU", 8.0, 1000.0)
    assert use.facts(price=2.5)["price"] == 20.0


def test_the_lives_of_a_requeued_job_are_added_up(tmp_path: Path):
    lives = f"12|NODE_FAIL|3600|{GPUS}|1\n12|CANCELLED by 1001|1800|{GPUS}|1\n"
    store = fake_slurm.store(tmp_path, sacct=lives)
    fake_slurm.deployment(store, "llama", "12")
    (use,) = cost.cost(store).uses
    assert (use.job, use.state, use.elapsed_s, use.unit_hours) == ("12", "cancelled", 5400, 6.0)


def test_each_replica_of_an_array_is_a_line_and_the_total_is_one(tmp_path: Path):
    store = fake_slurm.store(
        tmp_path, sacct="12_0|RUNNING|3600|cpu=2,mem=1G,node=1|1\n12_1|RUNNING|1800|cpu=2|1\n12_[2-3]|PENDING|0||0\n"
    )
    fake_slurm.deployment(store, "demo", "12")
    fake_slurm.run(store, "demo", "12_1", state="ready", watch={"generation_tokens": 30})
    bill = cost.cost(store)
    assert [(use.job, use.unit, use.unit_hours, use.generation_tokens) for use in bill.uses] == [
        ("12_0", "CPU", 2.0, 0),
        ("12_1", "CPU", 1.0, 30),
    ]
    (total,) = bill.totals()
    assert (total.job, total.unit_hours, total.generation_tokens) == ("2 jobs", 3.0, 30)


def test_a_successor_that_was_cancelled_in_the_queue_used_nothing_and_is_not_shown(tmp_path: Path):
    store = fake_slurm.store(tmp_path, sacct="12|COMPLETED|60|cpu=60|1\n13|CANCELLED by 1001|0||1\n14|PENDING|0||1\n")
    fake_slurm.deployment(store, "demo", "12", "13", "14")
    assert [use.job for use in cost.cost(store).uses] == ["12"]


def test_without_accounts_the_records_of_the_jobs_count_and_it_is_said(tmp_path: Path):
    store = fake_slurm.store(tmp_path, sacct=NO_ACCOUNTS)
    place = fake_slurm.deployment(store, "llama", "12")
    (place / "job.env").write_text("BERTH_GPUS_PER_NODE=4\n")
    fake_slurm.run(store, "llama", "12", state="stopped", started=1000, heartbeat=4600, nodes=["n1", "n2"])
    bill = cost.cost(store)
    assert [(use.unit, use.unit_hours) for use in bill.uses] == [("GPU", 8.0)]
    assert bill.notes == (cost.NO_ACCOUNTING,)


def test_jobs_that_were_submitted_by_hand_count_too(tmp_path: Path):
    store = fake_slurm.store(tmp_path, sacct="7|RUNNING|60|cpu=60|1\n")
    fake_slurm.run(store, "demo", "7", state="ready")
    assert [use.unit_hours for use in cost.cost(store, "demo").uses] == [1.0]


@pytest.mark.parametrize(
    ("tres", "counted"),
    [
        ("cpu=4,gres/gpu:h100=2,node=1", ("GPU", 2)),
        ("cpu=4,gres/gpu:a100=2,gres/gpu:h100=1,gres/gpu=3", ("GPU", 3)),
        ("cpu=4,gres/hpu=8", ("GPU", 8)),
        ("cpu=4,gres/gpumem=80G", ("CPU", 4)),
        ("", ("node", 3)),
        ("cpu=many,rubbish", ("node", 3)),
    ],
)
def test_what_an_allocation_counts(tres: str, counted: tuple[str, int]):
    assert cost.devices(tres, 3) == counted


def test_an_unknown_deployment_is_said_with_those_there_are(tmp_path: Path):
    store = fake_slurm.store(tmp_path)
    fake_slurm.deployment(store, "demo")
    with pytest.raises(BerthError, match="lama: no such deployment") as caught:
        cost.cost(store, "lama")
    assert caught.value.problems[0].hint == "there are: demo"
    assert caught.value.exit_code == 2
