"""`berth key`: keys are made and shown once, kept as hashes, listed and taken away."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from berth import __main__, deployment, keysfile
from berth.__main__ import main
from berth.errors import BerthError
from llm_service.lock.keys import Keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def berth(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run a command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setattr(__main__.signal, "signal", lambda *_: None)  # the test runner's handlers stay

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["berth", "key", *words])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_key_is_printed_alone_and_once_and_opens_the_service(berth, file: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = berth("add", "alice", "--file", str(file), "--max-in-flight", "8", "--requests-per-minute", "60")
    assert code == 0
    key = out.removesuffix("\n")
    assert key.startswith("berth-")
    assert len(key) > 40
    assert "not shown again" in err
    found = Keys(file).find(key.encode())
    assert found is not None
    assert (found.name, found.max_in_flight, found.requests_per_minute) == ("alice", 8, 60)
    assert key not in file.read_text() + err


def test_json_holds_the_key_and_where_its_hash_is(berth, file: Path) -> None:  # type: ignore[no-untyped-def]
    made = json.loads(berth("add", "bob", "--file", str(file), "--json")[1])
    assert (made["name"], made["file"]) == ("bob", str(file))
    assert Keys(file).find(made["key"].encode())
    listed = json.loads(berth("list", "--file", str(file), "--json")[1])
    assert listed["keys"] == [{"name": "bob", "max_in_flight": None, "requests_per_minute": None, "hashed": True}]
    assert made["key"] not in json.dumps(listed)


def test_keys_come_and_go_and_the_rest_of_the_file_stays(berth, file: Path) -> None:  # type: ignore[no-untyped-def]
    file.write_text("# clients\nold-key")
    mark = file.stat().st_ino
    for name in ("alice", "bob"):
        assert berth("add", name, "--file", str(file))[0] == 0
    assert berth("remove", "alice", "--file", str(file))[0] == 0
    assert berth("list", "--file", str(file))[1].splitlines() == [
        "name\tat a time\ta minute\tkept as",
        "line-2\t\t\tthe key itself",
        "bob\t\t\thash",
    ]
    lines = file.read_text().splitlines()
    assert (lines[:2], len(lines)) == (["# clients", "old-key"], 3)
    assert file.stat().st_ino == mark, "a container that has mounted the file would not see another"


def test_a_file_of_comments_takes_its_first_key(berth, file: Path) -> None:  # type: ignore[no-untyped-def]
    file.write_text("# clients\n")
    assert berth("add", "alice", "--file", str(file))[0] == 0
    assert len(keysfile.listed(file)) == 1


@pytest.mark.parametrize(
    ("before", "words", "said"),
    [
        ("", ("add", "two words"), "not a name for a key"),
        ("", ("add", "-x"), "No such option"),
        ("", ("add", "a", "--max-in-flight", "0"), "Invalid value for '--max-in-flight'"),
        ("two words\n", ("add", "a"), "Line 1 of"),
        ("plain\n", ("add", "line-1"), "has a key of the name line-1"),
        ("plain\n", ("remove", "a"), "has no key of the name a"),
        ("plain\n", ("remove", "line-1"), "line-1 is the last key of"),
        (None, ("remove", "a"), "is not there"),
        (None, ("list",), "cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_exit_code_2(  # type: ignore[no-untyped-def]
    berth, file: Path, before: str | None, words: tuple[str, ...], said: str
) -> None:
    if before is not None:
        file.write_text(before)
    code, out, err = berth(*words, "--file", str(file))
    assert (code, out) == (2, "")
    sentence, hint = err.strip().splitlines()
    assert said in sentence
    assert hint.startswith("berth: hint: ")
    assert before is None or file.read_text() == before


def test_a_file_that_cannot_be_written_is_exit_code_1(berth, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, _, err = berth("add", "alice", "--file", str(tmp_path))
    assert (code, "cannot be written: Is a directory" in err) == (1, True)


def test_the_file_is_the_one_that_the_settings_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked:
        named = str(file)

        def value(self, name: str) -> str:
            assert name == "LLM_API_KEYS_FILE"
            return self.named

    monkeypatch.setattr(deployment, "resolve", Asked)
    assert keysfile.find(None) == file
    assert keysfile.find(Path("/other")) == Path("/other")
    Asked.named = ""
    with pytest.raises(BerthError, match="LLM_API_KEYS_FILE is not set") as caught:
        keysfile.find(None)
    assert caught.value.exit_code == 2


def test_a_new_file_may_be_read_by_the_user_of_a_container(file: Path) -> None:
    made = f"from berth import keysfile; from pathlib import Path; keysfile.add(Path({str(file)!r}), 'alice')"
    subprocess.run(["bash", "-c", 'umask 022; exec "$0" -c "$1"', sys.executable, made], check=True)
    assert file.stat().st_mode & 0o777 == 0o644


def test_two_at_once_lose_no_key(file: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda number: keysfile.add(file, f"name-{number}"), range(40)))
    known = Keys(file)
    assert all(known.find(key.encode()) for key in made)
