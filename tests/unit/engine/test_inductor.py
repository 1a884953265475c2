"""What the installation learned about the compiler reaches Inductor's cache, and harms nothing there."""

from pathlib import Path

import pytest

from engine import inductor


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    folder = tmp_path / "answers"
    (folder / "ab").mkdir(parents=True)
    (folder / "ab" / "cabx.so").write_bytes(b"built at installation")
    return folder


def test_answers_are_found_in_the_cache_afterwards(tmp_path: Path, answers: Path) -> None:
    cache = tmp_path / "cache"
    inductor.hand_out_answers({"TORCHINDUCTOR_CACHE_DIR": str(cache)}, answers)
    assert [path.name for path in (cache / "ab").iterdir()] == ["cabx.so"]
    assert (cache / "ab" / "cabx.so").read_bytes() == b"built at installation"


def test_what_the_cache_already_holds_is_kept(tmp_path: Path, answers: Path) -> None:
    held = tmp_path / "cache" / "ab" / "cabx.so"
    held.parent.mkdir(parents=True)
    held.write_bytes(b"built here")
    inductor.hand_out_answers({"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}, answers)
    assert held.read_bytes() == b"built here"


def test_a_cache_that_cannot_be_written_to_is_no_error(tmp_path: Path, answers: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    inductor.hand_out_answers({"TORCHINDUCTOR_CACHE_DIR": str(in_the_way)}, answers)
    assert in_the_way.read_bytes() == b""


def test_without_a_cache_or_answers_nothing_happens(tmp_path: Path) -> None:
    inductor.hand_out_answers({}, tmp_path / "none")
    inductor.hand_out_answers({"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}, tmp_path / "none")
    assert not (tmp_path / "cache").exists()
