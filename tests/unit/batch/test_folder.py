"""The operator's side of a batch: its lines are looked at, its folder is found again, its answers become files."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.batch import asked
from berth.batch.counting import Count
from berth.batch.folder import Batch
from berth.errors import BerthError
from engine import journal
from engine.journal import Entry, Writer
from tests.unit.batch.offline import request


def batch_of(folder: Path, *lines: str) -> Batch:
    (folder / "in.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    batch = Batch(folder / "in.jsonl", folder / "out.jsonl")
    batch.folder.mkdir(exist_ok=True)
    return batch


def answered(number: int, failed: bool = False) -> Entry:
    body: dict[str, Any] = {"error": {"message": f"no {number}\n"}} if failed else {"answer": number}
    response = {"status_code": 404 if failed else 200, "body": body}
    return Entry(number, failed, {"custom_id": f"r{number}", "response": response, "error": None})


def written(path: Path, *entries: Entry) -> None:
    with closing(Writer(path)) as writer:
        for entry in entries:
            writer.add(entry)


def refused(*lines: str) -> dict[int, str]:
    found = asked.complaints((number, line.encode()) for number, line in enumerate(lines))
    return {entry.line: entry.output["response"]["body"]["error"]["message"] for entry in found}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "custom_id is missing"),
        ('{"custom_id": 7}', "custom_id is missing"),
        ('{"custom_id": "a", "method": "GET"}', "method is not"),
        ('{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {}}', "url is not"),
        ('{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": []}', "body is missing"),
    ],
)
def test_a_line_that_is_no_request_is_told_with_its_number(line: str, why: str) -> None:
    (number, said), *more = refused(request(0), line).items()
    assert not more
    assert (number, said[: len("line 2: ") + len(why)]) == (1, f"line 2: {why}")


def test_a_custom_id_stands_once(tmp_path: Path) -> None:
    assert refused(request(1), request(2), request(1)) == {2: "line 3: custom_id 'r1' stands on line 1 already"}


@given(st.lists(st.binary(max_size=80)))
@settings(deadline=None)
def test_whatever_the_lines_are_each_is_asked_or_refused(lines: list[bytes]) -> None:
    for entry in asked.complaints(enumerate(lines)):
        json.loads(journal.row(vars(entry)).encode())


@given(st.lists(st.integers(0, 30)), st.binary(max_size=60), st.integers(0, 400))
@settings(deadline=None)
def test_a_journal_that_was_torn_anywhere_is_gone_on_with(
    tmp_path_factory: pytest.TempPathFactory, lines: list[int], rubbish: bytes, cut: int
) -> None:
    path = journal.journal(tmp_path_factory.mktemp("torn"), "0-of-1")
    written(path, *map(answered, lines))
    path.write_bytes((path.read_bytes()[:cut]) + rubbish)
    whole = set(journal.places(path.parent))
    written(path, answered(31))
    found = [entry.line for entry in journal.entries(journal.places(path.parent))]
    assert found == sorted(whole | {31})


def test_answers_come_in_the_order_of_the_requests_and_failures_apart(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, *(request(number) for number in range(5)), "rubbish")
    manifest = batch.open("demo", "cpu")
    assert (manifest.requests, manifest.refused) == (6, 1)
    for name, lines in (("1-of-2", (3, 1)), ("0-of-2", (4, 0, 2, 1))):
        written(journal.journal(batch.folder, name), *(answered(line, failed=line == 2) for line in lines))
    outcome = batch.finish(manifest)
    assert (outcome.answered, outcome.failed) == (4, 2)
    assert dict(outcome.reasons)["no 2"] == 1
    names = [json.loads(row)["custom_id"] for row in batch.output.read_text().splitlines()]
    assert names == ["r0", "r1", "r3", "r4"]
    assert [json.loads(row)["custom_id"] for row in batch.errors.read_text().splitlines()] == ["r2", None]
    again = batch.open("demo", "cpu")
    assert (again.complete, again.answered, again.failed) == (True, 4, 2)
    assert not list(batch.folder.glob("*.jsonl"))


def test_without_failures_there_is_no_file_of_them(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, request(0))
    manifest = batch.open("demo", "cpu")
    written(journal.journal(batch.folder, "0-of-1"), answered(0))
    batch.finish(manifest)
    assert not batch.errors.exists()


@pytest.mark.parametrize(("model", "device", "lines"), [("other", "cpu", 1), ("demo", "cuda", 1), ("demo", "cpu", 2)])
def test_another_batch_is_not_mixed_in(tmp_path: Path, model: str, device: str, lines: int) -> None:
    batch_of(tmp_path, request(0)).open("demo", "cpu")
    batch = batch_of(tmp_path, *(request(number) for number in range(lines)))
    with pytest.raises(BerthError, match="was begun with") as raised:
        batch.open(model, device)
    assert raised.value.exit_code == 2


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, request(0))
    batch.output.write_text("mine")
    with pytest.raises(BerthError, match="is there already"):
        batch.open("demo", "cpu")
    assert batch.output.read_text() == "mine"


def test_an_edited_file_does_not_change_a_batch_on_its_way(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, request(0))
    batch.open("demo", "cpu")
    with open(batch.input, "a") as file:
        file.write(request(1))
    assert len(list(journal.requests(batch.folder))) == 1


@pytest.mark.parametrize("text", ["", "\n\n \n"])
def test_no_requests_at_all_are_refused(tmp_path: Path, text: str) -> None:
    batch = batch_of(tmp_path)
    batch.input.write_text(text)
    with pytest.raises(BerthError, match="holds no requests"):
        batch.open("demo", "cpu")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BerthError, match="cannot be read"):
        Batch(tmp_path / "nowhere", tmp_path / "out.jsonl").open("demo", "cpu")


def test_a_second_command_is_kept_away(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, request(0))
    with batch.held(), pytest.raises(BerthError, match="at work"), batch.held():
        pass


def test_the_end_is_estimated_from_this_runs_own_answers(tmp_path: Path) -> None:
    path = journal.journal(tmp_path, "0-of-1")
    written(path, *map(answered, range(50)))
    count = Count(tmp_path, 100)
    assert count.look(0.0) is None
    written(path, answered(50))
    assert count.look(100.0)
    written(path, *map(answered, range(51, 61)))
    phase = count.look(110.0)
    assert phase is not None
    assert (phase.fraction, phase.detail) == (0.61, "61 of 100, 1.1 a second, 35s left")
