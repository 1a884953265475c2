"""Keep-alive: the jobs that are submitted up front, and the durations they are written in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.errors import BerthError
from berth.slurm import chain, durations
from berth.slurm.chain import MOST_JOBS, Link

HOUR, MINUTE = 3600, 60
walltimes = st.integers(2 * MINUTE, 7 * 24 * HOUR)


def starts(links: list[Link]) -> list[int]:
    """When each job starts, in seconds from the first one's start."""
    begun: list[int] = []
    for link in links:
        begun.append(0 if link.previous is None else begun[link.previous] + link.after_minutes * MINUTE)
    return begun


def test_thirty_six_hours_of_four_hour_jobs():
    links = chain.chain(4 * HOUR, 36 * HOUR)
    assert len(links) == 10
    assert [link.previous for link in links] == [None, *range(9)]
    assert {link.after_minutes for link in links[1:]} == {216}  # 4 h less a tenth
    assert starts(links)[-1] + links[-1].time_s == 36 * HOUR
    assert links[1].options(["41"]) == ["--time=04:00:00", "--signal=B:USR1@120", "--dependency=after:41+216"]


@given(walltimes, st.data())
def test_a_chain_has_no_gap_and_is_as_long_as_was_asked_for(walltime: int, data: st.DataObject):
    handover = data.draw(st.none() | st.integers(1, walltime - MINUTE))
    least = chain.default_handover(walltime) if handover is None else handover
    longest = walltime + (MOST_JOBS - 1) * ((walltime - least) // MINUTE * MINUTE)
    keep_alive = data.draw(st.integers(1, longest))
    links = chain.chain(walltime, keep_alive, handover)
    begun = starts(links)
    ends = [start + link.time_s for start, link in zip(begun, links, strict=True)]
    assert ends[-1] == keep_alive
    assert all(0 < link.time_s <= walltime for link in links)
    for start, end_before in zip(begun[1:], ends, strict=False):
        assert least <= end_before - start < least + MINUTE
    # A job that would end before it can take over is never submitted.
    assert all(link.time_s > least for link in links[1:])
    assert all(link.after_minutes >= 1 for link in links[1:])
    assert len(links) <= MOST_JOBS


@given(walltimes)
def test_the_default_handover_leaves_room_for_a_successor_and_for_the_warning(walltime: int):
    handover = chain.default_handover(walltime)
    assert handover <= walltime - MINUTE
    assert chain.warning(walltime, handover) <= max(10, handover // 3)


def test_every_replica_under_keep_alive_is_a_chain_of_its_own():
    links = chain.plan(HOUR, 2 * HOUR, replicas=2)
    assert [link.previous for link in links] == [None, 0, 1, None, 3, 4]
    assert {link.replicas for link in links} == {1}


def test_replicas_without_keep_alive_are_one_array():
    (only,) = chain.plan(HOUR, replicas=3)
    assert only.options([]) == ["--time=01:00:00", "--signal=B:USR1@120", "--array=0-2"]


def test_a_keep_alive_within_the_walltime_is_one_shorter_job():
    assert [link.time_s for link in chain.plan(4 * HOUR, HOUR)] == [HOUR]


@pytest.mark.parametrize(
    ("walltime", "keep_alive", "handover", "replicas", "said"),
    [
        (HOUR, 36 * HOUR, HOUR, 1, "a handover of 1h does not fit into a walltime of 1h"),
        (HOUR, 36 * HOUR, 2 * HOUR, 1, "does not fit"),
        (MINUTE, HOUR, None, 1, "does not fit"),
        (HOUR, 90 * HOUR, None, 1, "takes 100 jobs of 1h; 50 is the most"),
        (HOUR, 20 * HOUR, None, 3, "3 replicas for 20h take 69 jobs"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(walltime, keep_alive, handover, replicas, said):
    with pytest.raises(BerthError, match=said) as caught:
        chain.plan(walltime, keep_alive, replicas, handover)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4:00:00", 4 * HOUR),
        ("1-00:00:00", 24 * HOUR),
        ("1-12", 36 * HOUR),
        ("1-12:30", 36 * HOUR + 30 * MINUTE),
        ("90", 90 * MINUTE),
        ("2:30", 150),
        ("36h", 36 * HOUR),
        ("90m", 90 * MINUTE),
        (" 1D12H ", 36 * HOUR),
        ("1h30m5s", HOUR + 30 * MINUTE + 5),
        ("45s", 45),
    ],
)
def test_durations_of_people_and_of_slurm(text: str, seconds: int):
    assert durations.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "soon", "-1h", "0", "1h 30m", "4:00:00:00", "1.5h", "٣h", "9" * 5000])
def test_what_is_no_duration_is_said_with_the_option(text: str):
    with pytest.raises(BerthError, match=r"--time .*not a duration") as caught:
        durations.parse(text, "--time")
    assert caught.value.exit_code == 2


@given(st.integers(1, 10**8))
def test_a_duration_survives_the_way_to_sbatch(seconds: int):
    assert durations.parse(chain.slurm_time(seconds)) == seconds


def test_durations_in_words():
    assert [durations.words(s) for s in (5, 125, 3600, 3 * HOUR + 59 * MINUTE, 36 * HOUR)] == [
        "5s", "2m 05s", "1h", "3h 59m", "1d 12h",
    ]  # fmt: skip
