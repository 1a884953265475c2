"""The file of `berth launch-many`: what it may say, and how it is told that it may not."""

from pathlib import Path

import pytest

from berth.errors import BerthError
from berth.paths import ROOT
from berth.slurm import fleet


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    return file


def test_the_example_is_valid_and_names_files_of_the_checkout():
    demo, qwen = fleet.read(ROOT / fleet.EXAMPLE)
    assert (demo.name, demo.time_s, demo.replicas) == ("demo", 1800, 2)
    assert demo.env == (ROOT / "env/cpu.env", ROOT / "env/models/demo.env")
    assert (qwen.name, qwen.keep_alive_s) == (None, 36 * 3600)
    assert qwen.settings == {"VLLM_MAX_MODEL_LEN": "16384", "VLLM_LOGPROBS_MODE": "raw_logprobs"}
    assert all(file.is_file() for one in (demo, qwen) for file in one.env)


def test_env_files_beside_the_fleet_file_come_first(tmp_path: Path):
    (tmp_path / "mine.env").touch()
    (one,) = fleet.read(write(tmp_path, '[[deployment]]\nenv = ["mine.env", "env/cpu.env"]'))
    assert one.env == (tmp_path / "mine.env", ROOT / "env/cpu.env")


def test_settings_become_what_an_env_file_would_say(tmp_path: Path):
    text = '[[deployment]]\nenv = "x"\nsettings = { A = true, B = 0.9, C = 8, D = \'{"a": "$HOME, b"}\', E = "" }'
    (one,) = fleet.read(write(tmp_path, text))
    assert one.settings == {"A": "true", "B": "0.9", "C": "8", "D": '{"a": "$HOME, b"}', "E": ""}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no deployment: a fleet file holds [[deployment]] tables only"),
        ("deployment = 3", "no deployment"),
        ("[deployments]\nenv = 'x'", "deployments: a fleet file holds"),
        ("deployment = [3]", "deployment 1: not a table"),
        ("[[deployment]]\nname = 'a'", "deployment 1 (a): env is no list of files"),
        ("[[deployment]]\nenv = 'x'\nreplica = 2", "deployment 1: replica: no such name"),
        ("[[deployment]]\nenv = 'x'\nreplicas = 0", "replicas = 0: not a number of at least 1"),
        ("[[deployment]]\nenv = 'x'\nnodes = true", "nodes = True: not a number"),
        ("[[deployment]]\nenv = 'x'\ntime = 'soon'", "deployment 1: time soon: not a duration"),
        ("[[deployment]]\nenv = 'x'\nname = ''", "name is no text"),
        ("[[deployment]]\nenv = 'x'\nsettings = { A = [1] }", "settings: A is no text or number"),
        ("[[deployment]]\nenv = 'x'\nsettings = { 'A b' = 1 }", "settings: 'A b' is no name of a setting"),
        ("[[deployment]\n", "not TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str):
    with pytest.raises(BerthError) as caught:
        fleet.read(write(tmp_path, text))
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path):
    with pytest.raises(BerthError) as caught:
        fleet.read(write(tmp_path, "[[deployment]]\nnme = 'a'\n[[deployment]]\nenv = 'x'\ntime = 'y'"))
    assert len(caught.value.problems) == 2
    assert "did you mean name?" in caught.value.problems[0].hint


def test_a_file_that_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(BerthError, match="No such file"):
        fleet.read(tmp_path / "none.toml")
