"""What squeue and sacct print, understood."""

import pytest

from berth.errors import BerthError
from berth.slurm import queue, reasons
from berth.slurm.cluster import Completed
from tests.support.fake_slurm import FakeCluster

SQUEUE = (
    "12|RUNNING|None|n[1-2]|2|2026-11-21T10:00:00|2026-11-21T14:00:00|3:59:01|berth-a|b\n"
    "13_0|PENDING|Priority||1|N/A|N/A|1-02:03:04|berth-c\n"
)


def test_jobs_are_read_and_times_are_utc() -> None:
    running, waiting = queue.jobs(FakeCluster(squeue=SQUEUE), ["12", "13"])
    assert (running.id, running.name, running.nodes, running.node_count) == ("12", "berth-a|b", "n[1-2]", 2)
    assert (running.start, running.end) == (1795255200, 1795269600)
    assert running.time_left_s == 3 * 3600 + 59 * 60 + 1
    assert (running.running, running.pending, running.over, running.reason) == (True, False, False, "")
    assert (waiting.id, waiting.pending, waiting.reason, waiting.start) == ("13_0", True, "Priority", None)
    assert waiting.time_left_s == 26 * 3600 + 3 * 60 + 4


def test_jobs_that_squeue_has_forgotten_are_asked_of_sacct() -> None:
    unknown = Completed("", "slurm_load_jobs error: Invalid job id specified", 1)
    ended = "7|CANCELLED by 1001|None|n1|1|2026-11-21T10:00:00|2026-11-21T10:01:00|00:01:00|berth-a\n"
    (job,) = queue.jobs(FakeCluster(squeue=unknown, sacct=ended), ["7"])
    assert (job.id, job.over, job.state) == ("7", True, "CANCELLED by 1001")
    assert queue.jobs(FakeCluster(squeue=unknown, sacct=Completed("", "no accounts", 1)), ["7"]) == []


def test_no_ids_ask_nobody() -> None:
    assert queue.jobs(FakeCluster(), []) == []


def test_a_controller_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "PAUSE_S", 0)
    cluster = FakeCluster(squeue=Completed("", "slurm_load_jobs error: Socket timed out", 1))
    with pytest.raises(BerthError, match="squeue failed: slurm_load_jobs error: Socket timed out"):
        queue.jobs(cluster, ["12"])
    assert len(cluster.asked) == queue.ATTEMPTS


def test_the_estimated_start_is_the_first_that_is_known() -> None:
    assert queue.estimated_start(FakeCluster(squeue="N/A\n2026-11-21T10:00:00\n"), "12") == 1795255200
    assert queue.estimated_start(FakeCluster(squeue="N/A\n"), "12") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3:04", 184), ("02:03:04", 7384), ("1-00:00:00", 86400), ("UNLIMITED", None), ("INVALID", None), ("", None)],
)
def test_durations(text: str, seconds: int | None) -> None:
    assert queue.seconds(text) == seconds


@pytest.mark.parametrize(
    ("reason", "word", "hopeless"),
    [
        ("Priority", "higher priority", False),
        ("Resources", "nodes to become free", False),
        ("QOSMaxGRESPerUser", "QOS", False),
        ("AssocGrpCPUMinutesLimit", "share is used up", False),
        ("ReqNodeNotAvail, UnavailableNodes:n3", "maintenance", False),
        ("PartitionTimeLimit", "more than the partition allows", True),
        ("", "has not looked at it", False),
        ("SomethingNew", "Slurm's reason is SomethingNew", False),
    ],
)
def test_reasons_in_words(reason: str, word: str, hopeless: bool) -> None:
    found = reasons.explain(reason)
    assert word in found.words
    assert found.hopeless is hopeless


def test_every_remedy_that_ends_in_an_error_is_there() -> None:
    assert [name for name, known in reasons._KNOWN.items() if known.hopeless and not known.remedy] == []
