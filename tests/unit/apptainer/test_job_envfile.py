"""The job script's reader of env files: what Compose and the command line read, or a refusal; never a shell."""

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berth import envfiles
from berth.errors import BerthError
from tests.support.job_script import read_env_files

_files = itertools.count()
relaxed = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def read(tmp_path: Path, *texts: str | bytes, mode: str = "") -> list[dict[str, str] | str]:
    paths = []
    for text in texts:
        path = tmp_path / f"{next(_files)}.env"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        paths.append(path)
    return read_env_files(paths, mode, tmp_path)


def by_the_command_line(tmp_path: Path, text: str) -> dict[str, str] | None:
    path = tmp_path / f"{next(_files)}.env"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        return {name: setting.value for name, setting in envfiles.read(path).items()}
    except BerthError:
        return None


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ("A=", ""),
        ("A=  blanks around\t ", "blanks around"),
        ('A={"a": 1, "b": "x y"}', '{"a": 1, "b": "x y"}'),
        ("A=a,b;c|d&e>f<g(h)`i`!j*k?l~m%n", "a,b;c|d&e>f<g(h)`i`!j*k?l~m%n"),
        ("A=back\\slash\\n", "back\\slash\\n"),
        ("A=it's", "it's"),
        ('A=a"b"', 'a"b"'),
        ("A=a#b", "a#b"),
        ("A=#a", "#a"),
        ("A=a # note", "a"),
        ("A=a # note with $HOME", "a"),
        ("A='$HOME and #'", "$HOME and #"),
        ("A='$(touch pwned)`touch pwned`'", "$(touch pwned)`touch pwned`"),
        ("A=''", ""),
        ('A="a b" # note', "a b"),
        ('A=\'{"a": "$b"}\'', '{"a": "$b"}'),
        ("export A=x", "x"),
        ("  A=x", "x"),
        ("A=a=b", "a=b"),
        ("A=ünïcode 漢字", "ünïcode 漢字"),
        ("A=x\r", "x"),
        ("A=1\nA=2", "2"),
        ("\ufeffA=x", "x"),
        ("# note\n\n \t\nA=x", "x"),
        ("A=x\n#", "x"),
    ],
)
def test_a_line_means_what_it_means_to_compose(tmp_path: Path, line: str, value: str) -> None:
    assert read(tmp_path, line) == [{"A": value}]
    assert by_the_command_line(tmp_path, line) == {"A": value}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A=1\nB=$HOME", ":2: B: Compose would expand the $"),
        ("A=`x`$", ":1: A: Compose would expand"),
        ('A="$x"', ":1: A: write"),
        ('A="a\\n"', ":1: A: write"),
        ("A='it\\'s'", ":1: A: write"),
        ('A="open', ":1: A: write"),
        ("\n\nA='two\nlines'", ":3: A: write"),
        ('A="a"b', ":1: A: write"),
        ("A", ":1: not a line of the form NAME=value"),
        ("A: x", ":1: not a line"),
        ("A = x", ":1: not a line"),
        ("A-B=x", ":1: not a line"),
        ("A[0]=x", ":1: not a line"),
        ("A[$(touch pwned)]=x", ":1: not a line"),
        ("=x", ":1: not a line"),
        ("A= # note", ":1: A: a comment where the value should be"),
        ("A=a\t# note", ":1: A: a tab before #"),
        ("A=a\u00a0", ":1: A: white space"),
        ("A=\u3000a", ":1: A: white space"),
        ("A=a\u2003#b", ":1: A: white space"),
        ("A=a\x0bb", ":1: a control character"),
        ("A=a\rB=b", ":1: a control character"),
        ("# a\rB=b", ":1: a control character"),
        (b"A=1\nB=\xff", ":2: not UTF-8 text"),
        (b"A=1\nB=2\nC=\x00", ":3: a zero byte"),
        (b"A=1\nB=\x00\nC=\xff", ":2: a zero byte"),
    ],
)
def test_what_readers_would_not_agree_on_is_refused_with_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    [refusal] = read(tmp_path, text)
    assert isinstance(refusal, str)
    assert said in refusal
    assert refusal.count("\n") == 1
    assert not (tmp_path / "pwned").exists()


def test_a_refusal_does_not_show_the_value(tmp_path: Path) -> None:
    for refusal in read(tmp_path, "HF_TOKEN=sesame$open", 'VLLM_API_KEY="sesame', "HF_TOKEN=sesame\x01", "sesame open"):
        assert isinstance(refusal, str)
        assert "sesame" not in refusal


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    [said] = read_env_files([tmp_path / "gone.env"])
    assert "gone.env: no such file" in said


@pytest.mark.parametrize("value", ["'a'", '"a"', "$HOME", "a # b", " a ", "#", "\t", "$(touch pwned)", "\\", "\u00a0"])
def test_a_file_that_berth_wrote_is_literal_to_the_end_of_the_line(tmp_path: Path, value: str) -> None:
    assert read(tmp_path, f"A={value}\n# note\n\nB=x\n", mode="literal") == [{"A": value, "B": "x"}]
    assert not (tmp_path / "pwned").exists()


def test_ten_thousand_lines_are_read(tmp_path: Path) -> None:
    expected = {f"NAME_{number}": f'{{"a": "value {number}"}}' for number in range(10_000)}
    text = "".join(f"{name}={value}\n" for name, value in expected.items())
    assert read(tmp_path, text) == [expected]


CHARACTERS = st.characters(exclude_categories=["Cs"])
SPECIAL = st.sampled_from([*list("\"'`\\#=${}[]:;,& \t\r"), " #", "$(touch pwned)", "`touch pwned`", "it's", "\u00a0"])
TEXT = st.lists(st.one_of(SPECIAL, CHARACTERS), max_size=10).map("".join)
QUOTED = st.builds(lambda quote, text, rest: f"{quote}{text}{quote}{rest}", st.sampled_from("'\""), TEXT, TEXT)
FRONT = st.sampled_from(["A=", "A= ", "export A=", " A=", ""])
LINES = st.builds(
    lambda front, value: f"{front}{value}", st.sampled_from(["A=", "A= ", "export A=", " A=", ""]), TEXT | QUOTED
)


@given(lines=st.lists(LINES, min_size=20, max_size=40))
@relaxed
def test_any_line_is_read_as_the_command_line_reads_it_or_refused(tmp_path: Path, lines: list[str]) -> None:
    for line, found in zip(lines, read(tmp_path, *lines), strict=True):
        if isinstance(found, dict):
            assert found == by_the_command_line(tmp_path, line), repr(line)
    assert not (tmp_path / "pwned").exists()


@given(files=st.lists(st.binary(max_size=60), min_size=20, max_size=40), mode=st.sampled_from(["", "literal"]))
@relaxed
def test_any_bytes_are_read_or_refused(tmp_path: Path, files: list[bytes], mode: str) -> None:
    for found in read(tmp_path, *files, mode=mode):
        assert isinstance(found, dict) or found.startswith("berth: error: ")


@given(values=st.lists(st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"])), max_size=50))
@relaxed
def test_whatever_berth_writes_arrives(tmp_path: Path, values: list[str]) -> None:
    expected = {f"NAME_{index}": value for index, value in enumerate(values)}
    text = "".join(f"{name}={value}\n" for name, value in expected.items())
    assert read(tmp_path, text, mode="literal") == [expected]
