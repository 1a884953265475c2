"""From submission to ready, and what `ls` makes of queue and endpoint files; the cluster is a script of answers."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from berth.errors import BerthError, Exit
from berth.progress import Progress
from berth.slurm import listing, logs, stopping, waiting
from berth.slurm.cluster import Completed
from berth.slurm.store import Deployed, EndpointFile, Store
from engine.phases import Phase
from tests.support import fake_slurm

GONE = Completed("", "slurm_load_jobs error: Invalid job id specified", 1)


class Shown(Progress):
    """Keeps what would be drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.phases: list[str] = []

    def show(self, phase: Phase) -> None:
        self.phases.append(f"{phase.name} {phase.detail}".strip())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 0)
    monkeypatch.setattr(waiting, "QUEUE_POLL_S", 0)
    monkeypatch.setattr(stopping, "POLL_S", 0)


def squeue(job: str, state: str, reason: str = "None", start: str = "N/A") -> str:
    return f"{job}|{state}|{reason}|n1|1|{start}|N/A|59:00|berth-a\n"


def wait(where: Store, timeout_s: float = 60, **more: Any) -> tuple[waiting.Wait, Shown]:
    deployed = Deployed("a", "cpu", "demo", jobs=["12"], sbatch=[["sbatch"]], **more)
    where.save(deployed)
    shown = Shown()
    return waiting.Wait(where, deployed, shown, timeout_s), shown


def failed(where: Store, **more: Any) -> tuple[int, str, str]:
    one, _ = wait(where, **more)
    with pytest.raises(BerthError) as caught:
        one.until_ready()
    (problem,) = caught.value.problems
    return int(problem.exit_code), problem.sentence, problem.hint


def test_a_run_that_is_ready_ends_the_wait(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path, squeue=squeue("12", "RUNNING"))
    fake_slurm.run(where, "a", "12", state="ready", heartbeat=time.time())
    assert wait(where)[0].until_ready().run == "12"


def test_the_queues_reason_and_the_estimate_are_shown_in_words(tmp_path: Path) -> None:
    where = fake_slurm.store(
        tmp_path, squeue=squeue("12", "PENDING", "Priority", "2026-11-21T10:20:00"), date="1795255200"
    )
    one, _ = wait(where)
    one._ask_queue()
    assert one._phase([]) == Phase(
        "queued", None, "job 12: jobs of higher priority are before it; estimated start in 20m"
    )


def test_the_engines_phase_is_shown_once_it_runs(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path, squeue=squeue("12", "RUNNING"))
    one, _ = wait(where)
    one._ask_queue()
    assert one._phase([]) == Phase("starting vLLM", None, "on n1")
    said = EndpointFile(
        run="12", job="12", state="starting", watch={"phase": {"name": "loading weights", "fraction": 0.4}}
    )
    assert one._phase([said]) == Phase("loading weights", 0.4, "on n1")


def test_the_clock_starts_with_the_job(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path, squeue=squeue("12", "PENDING", "Priority"))
    one, _ = wait(where, timeout_s=0)
    one._ask_queue()
    one._give_up([])  # queued for as long as it takes
    code, sentence, hint = failed(fake_slurm.store(tmp_path, squeue=squeue("12", "RUNNING")), timeout_s=0)
    assert code == Exit.NOT_READY
    assert sentence.startswith("not ready within 0 s of its start")
    assert "scripts/berth stop a" in hint


def test_what_can_never_start_is_an_error_and_is_cancelled(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path, squeue=squeue("12", "PENDING", "PartitionTimeLimit"), scancel="")
    code, sentence, hint = failed(where)
    assert (code, sentence) == (2, "job 12 would wait for ever: its walltime is more than the partition allows")
    assert "--time" in hint
    assert ["scancel", "--quiet", "12"] in where.cluster.asked  # type: ignore[attr-defined]


def test_a_failure_is_told_in_the_jobs_own_words(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path, squeue=squeue("12", "FAILED", "NonZeroExitCode"))
    fake_slurm.run(where, "a", "12", state="failed", reason="the weights are upside down")
    code, sentence, hint = failed(where)
    assert (code, sentence) == (1, "job 12 failed: the weights are upside down")
    assert "scripts/berth logs --runtime slurm --name a" in hint


def test_a_known_failure_is_explained_from_the_log(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path, squeue=squeue("12", "FAILED"))
    place = fake_slurm.run(where, "a", "12", state="failed", reason="torch.OutOfMemoryError")
    text = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    (place / "engine-0.log").write_text(text)
    assert "VLLM_" in failed(where)[2]


def test_a_job_that_said_nothing_is_told_by_slurm(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path, squeue=GONE, sacct=squeue("12", "NODE_FAIL"))
    assert failed(where)[1] == "job 12 ended before it was ready: a node failed"


def rows(where: Store) -> list[listing.Row]:
    return listing.rows(where)


def test_ls_tells_living_jobs_from_dead_ones(tmp_path: Path) -> None:
    now = time.time()
    where = fake_slurm.store(tmp_path, squeue=squeue("12", "RUNNING"), date=str(int(now)))
    fake_slurm.deployment(where, "a", "12")
    fake_slurm.run(
        where, "a", "12", state="ready", heartbeat=now, nodes=["n1", "n2"], port=20000,
        watch={"generation_tokens_per_s": 3.25},
    )  # fmt: skip
    (row,) = rows(where)
    assert row.cells() == ("a", "demo", "ready", "12", "n1,n2", "20000", "59m", "3.2", "")


def test_a_heartbeat_that_stopped_is_stale(tmp_path: Path) -> None:
    now = time.time()
    where = fake_slurm.store(tmp_path, squeue=squeue("12", "RUNNING"), date=str(int(now)))
    fake_slurm.deployment(where, "a", "12")
    fake_slurm.run(where, "a", "12", state="ready", heartbeat=int(now) - 120)
    (row,) = rows(where)
    assert (row.state, row.live) == ("stale", True)
    assert row.detail.startswith("silent for 2m")


def test_an_endpoint_file_of_a_dead_job_is_not_believed(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path, squeue=GONE, sacct=squeue("12", "NODE_FAIL"), date="1795255200")
    fake_slurm.deployment(where, "a", "12")
    fake_slurm.run(where, "a", "12", state="ready", heartbeat=1795255200)
    (row,) = rows(where)
    assert (row.state, row.live, row.detail) == ("failed", False, "a node failed")
    forgotten = fake_slurm.store(tmp_path, squeue=GONE, sacct=fake_slurm.NO_ACCOUNTS, date="1795255200")
    assert rows(forgotten)[0].detail == "its job is gone, and Slurm no longer knows how it ended"


def test_successors_that_wait_are_one_line(tmp_path: Path) -> None:
    queue = squeue("12", "RUNNING") + squeue("13", "PENDING", "Dependency") + squeue("14", "PENDING", "Dependency")
    where = fake_slurm.store(tmp_path, squeue=queue, date=str(int(time.time())))
    fake_slurm.deployment(where, "a", "12", "13", "14")
    assert [(row.job, row.state) for row in rows(where)] == [("12", "starting"), ("13", "queued")]
    assert rows(where)[1].detail == "it starts some time after the job before it; 1 more after it"


def test_stop_asks_the_batch_shell_and_cancels_what_waits(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path, squeue=squeue("12", "RUNNING") + squeue("13", "PENDING"), scancel="")
    fake_slurm.deployment(where, "a", "12", "13")
    asked = stopping.commands(stopping.living(where, ["a"]))
    assert asked == [
        ["scancel", "--quiet", "13"],
        ["scancel", "--quiet", "--signal=TERM", "--batch", "12"],
    ]


def test_a_job_that_does_not_listen_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "GRACE_S", -1)
    where = fake_slurm.store(tmp_path, squeue=squeue("12", "RUNNING"), scancel="")
    fake_slurm.deployment(where, "a", "12")
    assert stopping.stop(where, ["a"], Shown()) == ["12"]
    assert ["scancel", "--quiet", "12"] in where.cluster.asked  # type: ignore[attr-defined]


def test_logs_are_those_of_the_part_that_was_asked_for(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path, squeue=squeue("12", "RUNNING"), date=str(int(time.time())))
    fake_slurm.deployment(where, "a", "12")
    place = fake_slurm.run(where, "a", "12", state="ready")
    for name in ("engine-0.log", "engine-1.log", "door.log"):
        (place / name).write_text(f"first\nlast of {name}\n")
    assert list(logs.read(where, "a", "llm", False, None)) == ["first", "last of door.log"]
    assert list(logs.read(where, "a", "engine", False, 1)) == [
        "engine-0 | last of engine-0.log",
        "engine-1 | last of engine-1.log",
    ]
    assert next(logs.read(where, "a", None, False, 1)) == "batch    | a line"


def test_deployment_json_of_a_later_version_is_read(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path)
    place = fake_slurm.deployment(where, "a", "12")
    record = (place / "deployment.json").read_text().replace("{", '{"new": 1,', 1)
    (place / "deployment.json").write_text(record)
    found = where.load("a")
    assert found is not None
    assert dataclasses.asdict(found)["jobs"] == ["12"]


def test_a_key_is_made_once_and_a_given_one_replaces_it(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path)
    first = where.key("a")
    assert where.key("a") == first
    assert where.key("a", "mine") == "mine"
    assert (Path(where.deployment_dir("a")) / "api_key").stat().st_mode & 0o777 == 0o600


def test_an_unknown_name_gets_the_nearest(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path)
    fake_slurm.deployment(where, "llama")
    with pytest.raises(BerthError) as caught:
        where.known("lama")
    assert (str(caught.value), caught.value.problems[0].hint) == ("lama: no such deployment", "did you mean llama?")


def test_a_chain_that_is_come_back_to_is_not_given_up_for_its_first_jobs_end(tmp_path: Path) -> None:
    said = squeue("12", "COMPLETED") + squeue("13", "RUNNING") + squeue("14", "PENDING", "Dependency")
    where = fake_slurm.store(tmp_path, squeue=said, scancel="")
    after = ["sbatch", "--dependency=after:12+5"]
    chain = Deployed("a", "cpu", "demo", jobs=["12", "13", "14"], sbatch=[["sbatch"], after, after])
    where.save(chain)
    one = waiting.Wait(where, chain, Shown(), 60)
    one._ask_queue()
    one._give_up([])
    assert all("scancel" not in words for words in where.cluster.asked)  # type: ignore[attr-defined]


def test_a_run_that_died_ready_is_not_ready(tmp_path: Path) -> None:
    where = fake_slurm.store(tmp_path, squeue=squeue("12", "NODE_FAIL"))
    fake_slurm.run(where, "a", "12", state="ready", heartbeat=time.time() - 1000)
    code, sentence, _ = failed(where)
    assert code == 1
    assert "a node failed" in sentence
