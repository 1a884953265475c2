"""What a starting engine tells others: phases from its own lines, in a file whose lock lives as long as the engine."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine import announce
from engine.phases import LOADING, READY, STARTING
from tests.unit.engine.test_serve import ROOT, run

CHILD = """
import sys
import engine.announce
engine.announce.stdout.write("INFO [runner.py:68] Starting to load model /m...\\n")
sys.stderr.write("Loading safetensors checkpoint shards:  50% Comp")
sys.stderr.write("leted | 1/2 [00:00<00:00]\\n")
sys.stdout.flush()
"""


def told(file: Path) -> dict[str, object]:
    phase = json.loads(file.read_text(encoding="utf-8"))["phase"]
    assert isinstance(phase, dict)
    return phase


def as_vllm(program: str, file: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the environment that the launcher gives vLLM's processes."""
    given = {"PYTHONPATH": str(ROOT), "LLM_PHASE_FILE": str(file), announce.STREAM: announce.STDOUT, **environ}
    return subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, text=True, check=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "phase.json"
    made.write_text("{}")
    return made


def test_lines_of_both_streams_tell_the_phase_and_go_where_they_went(file: Path) -> None:
    done = as_vllm(CHILD, file)
    assert told(file) == {"name": LOADING, "fraction": 0.5, "detail": "1/2 files"}
    assert done.stdout.startswith("INFO [runner.py:68]")
    assert done.stderr.startswith("Loading safetensors checkpoint shards:  50% Completed | 1/2")


def test_once_it_serves_its_lines_are_heard_no_more(file: Path) -> None:
    as_vllm(
        "import sys, engine.announce\n"
        "print('INFO:     Application startup complete.')\nprint('Starting to load model of a prompt')",
        file,
    )
    assert told(file)["name"] == READY


def test_a_file_that_cannot_be_written_costs_the_engine_nothing(tmp_path: Path) -> None:
    done = as_vllm(CHILD, tmp_path / "missing" / "phase.json")
    assert "Starting to load" in done.stdout


def test_without_the_launchers_setting_no_stream_is_touched(file: Path) -> None:
    as_vllm(CHILD, file, VLLM_LOGGING_STREAM="ext://sys.stdout")
    assert file.read_text() == "{}"


def test_a_user_who_says_where_vllms_lines_go_is_obeyed() -> None:
    named = {"LLM_PHASE_FILE": "/run/phase.json"}
    (decision,) = announce.settle(named)
    assert decision.environ == {announce.STREAM: announce.STDOUT}
    for name, value in ((announce.STREAM, "x"), ("VLLM_LOGGING_CONFIG_PATH", "/c"), ("VLLM_CONFIGURE_LOGGING", "0")):
        assert announce.settle({**named, name: value}) == []
    assert announce.settle({}) == []


def test_the_stream_that_is_named_is_this_modules() -> None:
    module, _, attribute = announce.STDOUT.removeprefix("ext://").rpartition(".")
    assert getattr(sys.modules[module], attribute) is announce.stdout


def test_the_lock_is_kept_by_what_takes_the_launchers_place(file: Path) -> None:
    """And is gone with it."""
    script = (
        "import os, sys; from engine import announce; announce.begin(os.environ); "
        "os.execv(sys.executable, [sys.executable, '-c', 'print(1, flush=True); input()'])"
    )
    environ = {"PYTHONPATH": str(ROOT), "LLM_PHASE_FILE": str(file)}
    with (
        subprocess.Popen(
            [sys.executable, "-c", script], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as engine,
        file.open("rb") as reader,
    ):
        assert engine.stdout is not None
        assert engine.stdout.readline() == b"1\n"
        with pytest.raises(BlockingIOError):
            fcntl.flock(reader, fcntl.LOCK_SH | fcntl.LOCK_NB)
        engine.communicate(b"\n")
        fcntl.flock(reader, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert told(file)["name"] == STARTING


def test_the_launcher_names_the_file_and_starts_without_one_that_it_may_not_write(tmp_path: Path) -> None:
    done = run("--dry-run", home=tmp_path, LLM_PHASE_FILE="/not/here/phase.json")
    assert done.returncode == 0
    assert f"{announce.STREAM}={announce.STDOUT}" in done.stdout
    assert "told in /not/here/phase.json" in done.stderr


def test_begin_complains_and_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    announce.begin({"LLM_PHASE_FILE": "/not/here/phase.json"})
    assert "cannot be written" in capfd.readouterr().err
    announce.begin({})
    assert capfd.readouterr().err == ""
