"""The engine's side of a batch: every request is answered once, whatever ends the process in between."""

import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from engine import journal
from engine.batch import STOPPED
from tests.support.waiting import wait_until
from tests.unit.batch import offline


def test_every_request_has_its_answer_and_no_other(tmp_path: Path) -> None:
    folder = offline.write(tmp_path / "b", (offline.request(number) for number in range(50)))
    done = offline.answer(folder)
    assert done.returncode == 0, done.stderr
    for number, entry in enumerate(offline.entries(folder)):
        assert (entry.line, entry.output["custom_id"], entry.failed) == (number, f"r{number}", False)
        assert entry.output["response"]["body"]["answer_to"][0]["content"] == f"What is {number}?"
    assert done.stdout.count("endpoints made") == 1
    assert done.stdout.endswith("engine ended\n")


def test_two_thousand_requests_killed_five_times(tmp_path: Path) -> None:
    folder = offline.write(tmp_path / "b", (offline.request(number) for number in range(2000)))
    for at in sorted(random.sample(range(1, 1600), 5)):
        running = offline.begin(folder)
        wait_until(lambda at=at: len(offline.rows(folder)) >= at, 60, f"{at} answers", interval=0.005)  # type: ignore[misc]
        running.kill()
        running.wait()
    assert offline.answer(folder).returncode == 0
    assert sorted(offline.rows(folder)) == list(range(2000)), "none is lost, none is answered twice"
    assert len({entry.output["custom_id"] for entry in offline.entries(folder)}) == 2000


def test_what_is_done_is_not_asked_again(tmp_path: Path) -> None:
    folder = offline.write(tmp_path / "b", (offline.request(number) for number in range(9)))
    assert offline.answer(folder).returncode == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    again = offline.answer(folder)
    assert again.returncode == 0
    assert "answering 0 requests" in again.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_asked_to_stop_it_finishes_what_it_has_begun(tmp_path: Path) -> None:
    folder = offline.write(tmp_path / "b", (offline.request(number) for number in range(500)))
    running = offline.begin(folder, OFFLINE_SECONDS=0.05)
    wait_until(lambda: len(offline.rows(folder)) >= 16, 60, "some answers", interval=0.01)
    running.terminate()
    assert running.wait(60) == STOPPED
    done = offline.rows(folder)
    assert 16 <= len(done) < 500
    assert (folder.with_name("b.said")).read_text().endswith("engine ended\n")
    assert offline.answer(folder).returncode == 0
    assert sorted(offline.rows(folder)) == list(range(500))


def test_interrupted_it_ends_at_once_and_keeps_what_is_done(tmp_path: Path) -> None:
    folder = offline.write(tmp_path / "b", (offline.request(number) for number in range(40)))
    running = offline.begin(folder, OFFLINE_SECONDS=0.2, OFFLINE_AT_ONCE=2)
    wait_until(lambda: offline.rows(folder), 60, "an answer", interval=0.01)
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == STOPPED
    assert 1 <= len(offline.rows(folder)) < 40


def test_two_shares_never_answer_the_same(tmp_path: Path) -> None:
    folder = offline.write(tmp_path / "b", (offline.request(number) for number in range(101)))
    for part in ("1/3", "0/3", "2/3"):
        assert offline.answer(folder, part).returncode == 0
    assert sorted(offline.rows(folder)) == list(range(101))


def test_other_shares_than_before_pass_over_what_is_done(tmp_path: Path) -> None:
    folder = offline.write(tmp_path / "b", (offline.request(number) for number in range(60)))
    assert offline.answer(folder, "0/2").returncode == 0
    assert offline.answer(folder, "0/1").returncode == 0
    assert sorted(offline.rows(folder)) == list(range(60))


def test_a_request_that_fails_says_why_and_the_rest_is_answered(tmp_path: Path) -> None:
    lines = [offline.request(0), offline.request(1, max_tokens="many"), offline.request(2, model="gpt-4o")]
    folder = offline.write(tmp_path / "b", [*lines, offline.request(3)])
    assert offline.answer(folder).returncode == 0
    failed = {entry.line: entry.output["response"] for entry in offline.entries(folder) if entry.failed}
    assert failed[1]["body"]["error"]["message"] == "max_tokens is no number"
    assert (failed[2]["status_code"], failed[2]["body"]["error"]["code"]) == (404, 404)
    assert all(entry.output["error"] is None for entry in offline.entries(folder))
    assert set(failed) == {1, 2}


def test_an_engine_that_dies_fails_no_request(tmp_path: Path) -> None:
    folder = offline.write(tmp_path / "b", (offline.request(number) for number in range(40)))
    done = offline.answer(folder, OFFLINE_DIES_AFTER=20)
    assert done.returncode == 1
    assert "berth: error: vLLM's engine died" in done.stderr
    found = offline.entries(folder)
    assert 0 < len(found) < 20
    assert not any(entry.failed for entry in found)
    assert offline.answer(folder).returncode == 0
    assert sorted(offline.rows(folder)) == list(range(40))


def test_a_share_is_answered_by_one_process_at_a_time(tmp_path: Path) -> None:
    folder = offline.write(tmp_path / "b", (offline.request(number) for number in range(40)))
    running = offline.begin(folder, OFFLINE_SECONDS=0.5)
    wait_until(lambda: (folder / "answers-0-of-1.jsonl").exists(), 60, "its journal", interval=0.01)
    try:
        second = offline.answer(folder)
        assert second.returncode == 1
        assert "another process answers this share" in second.stderr
    finally:
        running.kill()
        running.wait()


@pytest.mark.parametrize("words", [[], ["nowhere"], ["b", "3/3"], ["b", "0/1", "more"]])
def test_bad_arguments_are_refused_before_anything_loads(tmp_path: Path, words: list[str]) -> None:
    command = [*offline.command(tmp_path)[:3], "engine.batch", *words]
    settings = {"LLM_VLLM_MODEL_NAME": "demo", "LLM_DEVICE": "cpu"}
    done = subprocess.run(command, env=offline.environ(**settings), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in (2, 3)
    assert "berth: error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_launcher_passes_on_the_flags_of_serving(tmp_path: Path) -> None:
    settings = {"LLM_VLLM_MODEL_NAME": "demo", "LLM_DEVICE": "cpu", "VLLM_MAX_MODEL_LEN": "128", "HOME": str(tmp_path)}
    base = [offline.command(tmp_path)[0], "-P", "-m"]
    said = [
        subprocess.run(
            [*base, *words], env=offline.environ(**settings), cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.split()
        for words in (["engine.serve", "--dry-run"], ["engine.batch", "--dry-run", str(tmp_path), "1/2"])
    ]
    serving, batch = (words[words.index("serve") :] for words in said)
    assert serving == batch
    assert "--max-model-len" in batch
    assert said[1][said[1].index("engine.batch_vllm") :][-len(batch) - 2 : -len(batch)] == [str(tmp_path), "1/2"]


def test_several_nodes_are_refused(tmp_path: Path) -> None:
    folder = offline.write(tmp_path / "b", [offline.request(0)])
    command = [*offline.command(tmp_path)[:3], "engine.batch", str(folder)]
    settings = {"LLM_VLLM_MODEL_NAME": "demo", "LLM_DEVICE": "cpu", "VLLM_NNODES": "2"}
    done = subprocess.run(command, env=offline.environ(**settings), capture_output=True, text=True)
    assert (done.returncode, "one node" in done.stderr) == (2, True)


def test_a_torn_line_is_no_answer(tmp_path: Path) -> None:
    folder = offline.write(tmp_path / "b", (offline.request(number) for number in range(3)))
    assert offline.answer(folder).returncode == 0
    path = journal.journal(folder, "0-of-1")
    whole = path.read_bytes()
    os.truncate(path, len(whole) - 7)
    assert [entry.line for entry in offline.entries(folder)] == [0, 1]
    assert offline.answer(folder).returncode == 0
    assert [json.loads(line)["line"] for line in path.read_bytes().splitlines() if line.endswith(b"}")][-1] == 2
    assert [entry.line for entry in offline.entries(folder)] == [0, 1, 2]
