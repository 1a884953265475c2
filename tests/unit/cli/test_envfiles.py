"""The env reader: values as Compose reads them, and errors that name file and line."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berth import envfiles
from berth.envfiles import SHELL, Setting
from berth.errors import BerthError, Exit


def write(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "x.env"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def values(tmp_path: Path, content: str | bytes) -> dict[str, str]:
    return {name: setting.value for name, setting in envfiles.read(write(tmp_path, content)).items()}


def test_values_are_literal_to_the_end_of_the_line(tmp_path: Path) -> None:
    text = 'A={"image": 4}\nB=--max-num-seqs 64 --enable-x\nC=$HOME ${X} `id`\nD=a=b;c*\\n\nE=#x\nF=\n'
    assert values(tmp_path, text) == {
        "A": '{"image": 4}',
        "B": "--max-num-seqs 64 --enable-x",
        "C": "$HOME ${X} `id`",
        "D": "a=b;c*\\n",
        "E": "#x",
        "F": "",
    }


def test_a_file_that_users_bring_is_read_as_compose_reads_it(tmp_path: Path) -> None:
    text = "\ufeffexport A=1\r\nB=\"Intel/neural-chat-7b-v3-3\"\r\nC='x y' # why\r\nD=1 # comment\r\n"
    assert values(tmp_path, text) == {"A": "1", "B": "Intel/neural-chat-7b-v3-3", "C": "x y", "D": "1"}


def test_each_value_knows_its_file_and_line(tmp_path: Path) -> None:
    read = envfiles.read(write(tmp_path, "# head\n\nA=1\nB='x\ny'\n\nC=3\nA=4\n"), "env/x.env")
    assert {name: setting.source for name, setting in read.items()} == {
        "A": "env/x.env:8",
        "B": "env/x.env:4",
        "C": "env/x.env:7",
    }


@pytest.mark.parametrize(
    ("content", "line", "about"),
    [
        ("A=1\nB C\n", 2, "not a line of the form"),
        ("A=1\n\n# c\n\nB\n", 5, "B has no value"),
        ('A="open\nB=1\n', 1, "not a line of the form"),
        ("A='x\ny'\nB C\n", 3, "not a line of the form"),
        ("1A=2\n", 1, "not a line of the form"),
        ("=5\n", 1, "not a line of the form"),
        ("A=1\nB=a\0b\n", 2, "zero byte"),
        (b"A=1\nB=\xff\n", 2, "not UTF-8"),
    ],
)
def test_a_malformed_line_is_one_sentence_with_file_and_line(
    tmp_path: Path, content: str | bytes, line: int, about: str
) -> None:
    with pytest.raises(BerthError) as caught:
        envfiles.read(write(tmp_path, content), "x.env")
    (problem,) = caught.value.problems
    assert problem.sentence.startswith(f"x.env:{line}: ")
    assert about in problem.sentence
    assert problem.exit_code == Exit.BAD_SETTING


def test_a_missing_file_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(BerthError, match="no such file") as caught:
        envfiles.read(tmp_path / "none.env")
    assert caught.value.exit_code == 2


def test_a_directory_is_no_env_file(tmp_path: Path) -> None:
    with pytest.raises(BerthError, match="cannot be read"):
        envfiles.read(tmp_path)


def test_later_files_win_and_the_shell_wins_over_all() -> None:
    first = {"A": Setting("A", "1", "a:1"), "B": Setting("B", "1", "a:2"), "C": Setting("C", "1", "a:3")}
    second = {"B": Setting("B", "2", "b:1"), "C": Setting("C", "2", "b:2")}
    merged = envfiles.layer([first, second], {"C": "", "D": "4"})
    assert merged == {
        "A": Setting("A", "1", "a:1"),
        "B": Setting("B", "2", "b:1"),
        "C": Setting("C", "", SHELL),  # set to nothing: that is how a shell unsets what a file says
    }


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=120), st.text("AB_1=\"'#$\\ \t\r\n\0é\u2028", max_size=80).map(str.encode)))
def test_no_file_whatsoever_gets_a_traceback(tmp_path: Path, content: bytes) -> None:
    read, problems = {}, ()
    try:
        read = envfiles.read(write(tmp_path, content), "x.env")
    except BerthError as error:
        problems = error.problems
    assert all(re.match(r"x\.env:[1-9]\d*: ", problem.sentence) for problem in problems)
    assert all(problem.exit_code == Exit.BAD_SETTING for problem in problems)
    assert all(re.fullmatch(r"[A-Za-z_]\w*", name) and "\0" not in one.value for name, one in read.items())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=60))
def test_any_value_of_the_portable_subset_comes_back_as_it_was_written(tmp_path: Path, value: str) -> None:
    value = re.sub(r"\s+", " ", value.strip().strip("'\"").strip()).replace(" #", " ")
    assert values(tmp_path, f"A={value}\nB=2\n") == {"A": value.strip(), "B": "2"}
