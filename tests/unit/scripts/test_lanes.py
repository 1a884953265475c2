"""scripts/lib/lanes.sh: lanes side by side, outputs kept apart, results of all, Ctrl-C for all."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

LIBRARY = Path(__file__).resolve().parents[3] / "scripts" / "lib" / "lanes.sh"


def begin(folder: Path, lanes: str) -> "subprocess.Popen[str]":
    """Run the functions `first` and `second` of the text `lanes`, as scripts/test does."""
    script = f'set -euo pipefail; source "$0"; cd "$1"\n{lanes}\nrun_lanes logs first second; exit "$lanes_result"'
    # Whoever runs these tests may have had signals ignored (nohup does), and no shell can undo that for itself.
    command = ["env", "--default-signal=INT,TERM,HUP", "bash", "-c", script, str(LIBRARY), str(folder)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def run(folder: Path, lanes: str) -> tuple[int, list[str]]:
    process = begin(folder, lanes)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said.splitlines()


def test_lanes_run_at_once_and_their_outputs_do_not_mix(tmp_path: Path) -> None:
    # Each waits for the other's word, so one after the other would never end; a fifo is no fixed sleep.
    os.mkfifo(tmp_path / "there")
    os.mkfifo(tmp_path / "back")
    code, said = run(
        tmp_path,
        "first() { echo 1a; echo >there; read -r _ <back; echo 1b; }\n"
        "second() { echo 2a; read -r _ <there; echo 2b; echo >back; }",
    )
    assert (code, said) == (0, ["1a", "1b", "2a", "2b"])
    assert (tmp_path / "logs" / "second.log").read_text() == "2a\n2b\n"


@pytest.mark.parametrize("failing", ["first", "second", "first second"])
def test_one_that_fails_fails_all_but_stops_no_other(tmp_path: Path, failing: str) -> None:
    results = {lane: 3 if lane in failing.split() else 0 for lane in ("first", "second")}
    lanes = "\n".join(f"{lane}() {{ echo {lane} ran; return {result}; }}" for lane, result in results.items())
    assert run(tmp_path, lanes) == (1, ["first ran", "second ran"])


def test_a_command_that_fails_within_a_lane_ends_it_there(tmp_path: Path) -> None:
    code, said = run(tmp_path, "first() { echo before; false; echo after; }\nsecond() { echo whole; }")
    assert (code, said) == (1, ["before", "whole"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_what_every_lane_runs_and_is_waited_for(tmp_path: Path, number: signal.Signals) -> None:
    # Like pytest: Ctrl-C is caught, what was started is taken down, and the command returns.
    program = (
        "import pathlib, signal, sys\n"
        "def end(*_):\n    pathlib.Path(sys.argv[1], 'tidied').touch(); print('tidied'); sys.exit(2)\n"
        "signal.signal(signal.SIGINT, end)\n"
        "pathlib.Path(sys.argv[1], 'begun').touch()\n"
        "signal.pause()\n"
    )
    (tmp_path / "program.py").write_text(program)
    for lane in ("first", "second"):
        (tmp_path / lane).mkdir()
    lanes = "\n".join(
        f"{lane}() {{ python3 program.py {lane} || true; echo went on; touch {lane}/went-on; }}"
        for lane in ("first", "second")
    )
    with begin(tmp_path, lanes) as process:
        try:
            for lane in ("first", "second"):
                wait_until((tmp_path / lane / "begun").exists, 30, f"{lane} running")
            process.send_signal(number)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert said.splitlines() == ["tidied", "tidied"]
    for lane in ("first", "second"):
        assert (tmp_path / lane / "tidied").exists()
        assert not (tmp_path / lane / "went-on").exists(), "the lane ends with what it ran"
