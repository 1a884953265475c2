"""Leftovers: what is one, and what is never touched."""

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from berth.errors import BerthError
from berth.slurm import connections, gc
from berth.slurm.cluster import Completed
from tests.support import fake_slurm

DAY = 86400


@pytest.fixture(autouse=True)
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where connections keep their state: not in the checkout."""
    monkeypatch.setattr(connections, "CONNECT", tmp_path / "connect")
    return tmp_path / "connect"


def age(place: Path, days: float) -> Path:
    """Make all of a directory look untouched for so long."""
    moment = time.time() - days * DAY
    for path in [*place.rglob("*"), place]:
        os.utime(path, (moment, moment), follow_symlinks=False)
    return place


def in_queue(*jobs: str) -> str:
    return "".join(f"{job}|RUNNING|None|n1|1|2026-11-21T10:00:00|2026-11-21T11:00:00|30:00|demo\n" for job in jobs)


def found(store, **how) -> list[tuple[str, str]]:
    root = store.root
    return sorted((each.kind, each.where.removeprefix(f"{root}/")) for each in gc.find(store, **how))


def test_an_old_deployment_without_jobs_goes_as_a_whole(tmp_path: Path):
    store = fake_slurm.store(tmp_path, squeue="")
    fake_slurm.run(store, "old", "12", state="stopped")
    age(fake_slurm.deployment(store, "old", "12"), 30)
    assert found(store) == [("deployment", "deployments/old")]
    gc.clear(store, gc.find(store))
    assert store.names() == []


def test_of_a_deployment_that_runs_only_the_old_runs_of_other_jobs_go(tmp_path: Path):
    store = fake_slurm.store(tmp_path, squeue=in_queue("13"))
    place = fake_slurm.deployment(store, "demo", "12", "13")
    age(fake_slurm.run(store, "demo", "12", state="stopped"), 30)
    age(fake_slurm.run(store, "demo", "13", state="ready", heartbeat=time.time()), 30)
    age(place, 30)
    assert found(store) == [("run", "deployments/demo/runs/12")]
    gc.clear(store, gc.find(store))
    assert store.cluster.listdir(f"{place}/runs") == ["13"]


@pytest.mark.parametrize("queued", ["14", "14_0", "14_3"])
def test_a_deployment_whose_job_still_waits_is_kept(tmp_path: Path, queued: str):
    store = fake_slurm.store(tmp_path, squeue=in_queue(queued))
    age(fake_slurm.deployment(store, "demo", "14"), 30)
    assert found(store) == []


def test_a_batch_that_was_given_up_goes_and_one_whose_jobs_wait_is_kept(tmp_path: Path):
    job = in_queue("14_0").replace("|demo", "|berth-batch-busy")
    store = fake_slurm.store(tmp_path, squeue=job)
    for name in ("busy-0123456789ab", "given-up-0123456789ab"):
        (place := Path(store.root) / "batches" / name).mkdir(parents=True)
        (place / "answers-0-of-1.jsonl").write_text("{}\n")
        age(place, 30)
    (Path(store.root) / "batches" / "recent-0123456789ab").mkdir()
    assert found(store) == [("batch", "batches/given-up-0123456789ab")]
    gc.clear(store, gc.find(store))
    assert sorted(store.cluster.listdir(f"{store.root}/batches")) == ["busy-0123456789ab", "recent-0123456789ab"]


def test_recent_runs_are_kept_and_the_limit_can_be_given(tmp_path: Path):
    store = fake_slurm.store(tmp_path, squeue="")
    fake_slurm.run(store, "demo", "12", state="stopped")
    age(fake_slurm.deployment(store, "demo", "12"), 2)
    assert found(store) == []
    assert found(store, older_than_s=DAY) == [("deployment", "deployments/demo")]


def test_an_endpoint_file_of_a_dead_job_is_ended_and_keeps_its_tokens(tmp_path: Path):
    store = fake_slurm.store(tmp_path, squeue="")
    fake_slurm.deployment(store, "demo", "12")
    place = fake_slurm.run(store, "demo", "12", state="ready", heartbeat=1, watch={"generation_tokens": 5})
    (left,) = gc.find(store)
    assert left.why == "says ready, and job 12 has ended"
    gc.clear(store, [left])
    said = json.loads((place / "endpoint.json").read_text())
    assert said["state"] == "failed"
    assert said["watch"] == {"generation_tokens": 5}


def test_a_job_that_came_back_between_looking_and_deleting_is_kept(tmp_path: Path):
    store = fake_slurm.store(tmp_path, squeue="")
    place = fake_slurm.run(store, "demo", "12", state="ready", heartbeat=1)
    fake_slurm.deployment(store, "demo", "12")
    age(place.parents[1], 30)
    leftovers = gc.find(store)
    assert {each.kind for each in leftovers} == {"endpoint", "deployment"}
    store.cluster.answers["squeue"] = Completed(in_queue("12"), "", 0)  # requeued
    gc.clear(store, leftovers)
    assert json.loads((place / "endpoint.json").read_text())["state"] == "ready"


def test_a_beating_heart_counts_even_where_the_queue_does_not_know_the_job(tmp_path: Path):
    store = fake_slurm.store(tmp_path, squeue="")
    fake_slurm.run(store, "demo", "12", state="ready", heartbeat=time.time())
    fake_slurm.deployment(store, "demo", "12")
    assert found(store, older_than_s=0.0) == []


def test_models_and_compiled_code_and_images_are_never_leftovers(tmp_path: Path):
    store = fake_slurm.store(tmp_path, squeue="")
    for name in ("models/hub/weights", "cache/cpu/code", "sif/vllm-cpu.sif", "sif/.sif-abc/x", "sif/README"):
        file = Path(store.root, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    age(Path(store.root), 300)
    assert found(store) == [("image", "sif/.sif-abc")]


def test_where_the_queue_does_not_answer_nothing_is_a_leftover(tmp_path: Path):
    store = fake_slurm.store(tmp_path, squeue=Completed("", "Unable to contact slurm controller", 1))
    age(fake_slurm.deployment(store, "demo", "12"), 30)
    with pytest.raises(BerthError):
        gc.find(store)


def test_what_is_kept_of_a_closed_connection_goes_with_the_last_job(tmp_path: Path, connect: Path):
    store = fake_slurm.store(tmp_path, squeue=in_queue("12"))
    fake_slurm.deployment(store, "lives", "12")
    fake_slurm.deployment(store, "dead", "11")
    for name in ("lives", "dead"):
        connections.directory(name).mkdir(parents=True)
        (connections.directory(name) / "port").write_text("40000\n")
    assert [each.where for each in gc.find(store)] == [str(connections.directory("dead"))]
    gc.clear(store, gc.find(store))
    assert not connections.directory("dead").exists()
    assert connections.directory("lives").exists()


def test_an_open_connection_is_never_touched(tmp_path: Path, connect: Path):
    store = fake_slurm.store(tmp_path, squeue="")
    place = connections.directory("dead")
    place.mkdir(parents=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert gc.find(store) == []


def test_what_a_killed_job_left_on_its_node_goes_by_a_small_job_there(tmp_path: Path):
    store = fake_slurm.store(tmp_path, squeue=in_queue("13"), srun="")
    fake_slurm.deployment(store, "demo", "12", "13")
    path = f"/tmp/berth-{os.getuid()}-12.Abc123"
    for number, said in (("12", f"n2 {path}\n"), ("13", f"n2 /tmp/berth-{os.getuid()}-13.Abc123\n")):
        run = fake_slurm.run(store, "demo", number, state="stopped")
        (run / "private-0").write_text(said)
    (left,) = gc.find(store)
    assert (left.kind, left.where) == ("scratch", f"n2:{path}")
    assert gc.clear(store, [left]) == []
    (asked,) = [words for words in store.cluster.asked if words[0] == "srun"]
    assert "--nodelist=n2" in asked
    assert asked[-5:] == ["rm", "-rf", "--", path, path.replace("/tmp/", "/dev/shm/")]
    assert gc.find(store) == []


@pytest.mark.parametrize(
    "said", ["n2 /home/alice", "n2 /tmp/berth-0-12.x/../../home", "n2 /tmp/x", "n2;id /tmp/berth-0-12.x", ""]
)
def test_a_record_that_names_anything_else_is_not_believed(tmp_path: Path, said: str):
    store = fake_slurm.store(tmp_path, squeue="", id="0")
    fake_slurm.deployment(store, "demo", "12")
    (fake_slurm.run(store, "demo", "12", state="stopped") / "private-0").write_text(said)
    assert gc.find(store) == []


def test_a_node_that_is_busy_is_said_and_asked_another_time(tmp_path: Path):
    store = fake_slurm.store(tmp_path, squeue="", srun=Completed("", "Unable to allocate resources", 1))
    fake_slurm.deployment(store, "demo", "12")
    run = fake_slurm.run(store, "demo", "12", state="stopped")
    (run / "private-0").write_text(f"n2 /tmp/berth-{os.getuid()}-12.Abc123\n")
    assert gc.sweep(store, delete=True).notes == ("n2 was too busy to be asked for its /tmp",)
    assert [each.kind for each in gc.find(store)] == ["scratch"]


def test_the_log_that_slurm_wrote_goes_with_its_run(tmp_path: Path):
    store = fake_slurm.store(tmp_path, squeue=in_queue("13"))
    place = fake_slurm.deployment(store, "demo", "12", "13")
    run = fake_slurm.run(store, "demo", "12", state="stopped")
    (run / "batch.log").unlink()
    (run / "batch.log").symlink_to(place / "slurm-12.log")
    (place / "slurm-12.log").write_text("words")
    age(run, 30)
    assert [each.kind for each in gc.sweep(store, delete=True).found] == ["run"]
    assert not (place / "slurm-12.log").exists()
