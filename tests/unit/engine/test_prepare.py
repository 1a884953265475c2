"""Compose's first step: who may read which secret, and which names are nobody's."""

import os
import stat
from pathlib import Path

import pytest

from engine import prepare
from engine.messages import Exit
from llm_service.config.loading import SettingsError, load

KNOWN = {"BERTH_NAMES": "BERTH_CPUS BERTH_NAMES LLM_STREAM_FORMAT LLM_USVC_PORT"}


@pytest.fixture
def given(tmp_path: Path) -> Path:
    folder = tmp_path / "given"
    folder.mkdir()
    return folder


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


def handed_out(volume: Path) -> dict[str, str]:
    return {str(path.relative_to(volume)): path.read_text() for path in volume.rglob("*") if path.is_file()}


def test_each_service_gets_the_secrets_that_it_may_read(given: Path, volume: Path) -> None:
    (given / "hf_token").write_text("token\n")
    (given / "vllm_api_key").write_text("key")
    (given / "other").write_text("not asked for")
    assert prepare.hand_out(given, volume) == []
    assert handed_out(volume) == {"engine/hf_token": "token", "engine/vllm_api_key": "key", "llm/vllm_api_key": "key"}
    for path in volume.rglob("*_*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o227 == 0, "for the owner and group 0 to read, for nobody to write"


def test_secrets_that_are_no_longer_given_are_removed_and_new_ones_replace_old(given: Path, volume: Path) -> None:
    (given / "hf_token").write_text("old")
    (given / "vllm_api_key").write_text("key")
    prepare.hand_out(given, volume)
    (given / "hf_token").write_text("new")
    (given / "vllm_api_key").write_text(" \n")
    prepare.hand_out(given, volume)
    assert handed_out(volume) == {"engine/hf_token": "new"}


def test_without_secrets_the_folders_are_there_and_empty(given: Path, volume: Path) -> None:
    assert prepare.hand_out(given / "absent", volume) == []
    assert sorted(path.name for path in volume.iterdir()) == ["engine", "llm", "phase"]
    assert handed_out(volume) == {}


def test_a_volume_that_cannot_be_written_is_one_sentence(given: Path, volume: Path) -> None:
    (volume / "engine").write_text("a file where a folder should be")
    (problem,) = prepare.hand_out(given, volume)
    assert problem.exit_code is Exit.FAILED
    assert "secrets cannot be handed out" in problem.sentence


@pytest.mark.parametrize(
    ("name", "meant"), [("BERTH_CPU", "BERTH_CPUS"), ("LLM_STREM_FORMAT", "LLM_STREAM_FORMAT"), ("LLM_X", None)]
)
def test_names_that_look_like_the_kits_and_are_not_are_problems(name: str, meant: str | None) -> None:
    (problem,) = prepare.unknown({**KNOWN, name: "1"})
    assert problem.sentence == f"{name}: no such setting"
    assert problem.exit_code is Exit.BAD_SETTING
    assert meant is None or meant in problem.hint


def test_names_of_the_engine_and_of_others_are_not_this_steps_business() -> None:
    environ = {"VLLM_TYPO": "", "LLM_VLLM_TYPO": "", "LLM_DEVICE": "cpu", "NCCL_DEBUG": "INFO", "LLM_USVC_PORT": "1"}
    assert prepare.unknown({**KNOWN, **environ}) == []


def test_a_secret_in_the_containers_environment_is_a_problem_that_does_not_repeat_it() -> None:
    found = prepare.misplaced({"HUGGING_FACE_HUB_TOKEN": "canary", "S3_SECRET_ACCESS_KEY": "canary", "HF_TOKEN": ""})
    assert [problem.sentence.split()[0] for problem in found] == ["HUGGING_FACE_HUB_TOKEN", "S3_SECRET_ACCESS_KEY"]
    assert "HF_TOKEN" in found[0].hint
    assert not [problem for problem in found if "canary" in f"{problem.sentence} {problem.hint}"]


def test_the_log_says_which_files_a_typo_would_be_found_in() -> None:
    layers = {"BERTH_DEVICE_ENV": "env/cpu.env", "BERTH_MODEL_ENV": "", "BERTH_LOCAL_ENV": "../site.env"}
    assert prepare.checked(layers).startswith("checked for unknown names: env/cpu.env, ../site.env (")


def test_everything_that_is_wrong_is_said_at_once(
    given: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(os.environ):
        if name.startswith(("VLLM_", "LLM_", "BERTH_", "HF_", "S3_", "AWS_", "HUGGING_FACE_")):
            monkeypatch.delenv(name)
    settings = {**KNOWN, "LLM_DEVICE": "cpu", "LLM_VLLM_MODEL_NAME": "demo", "BERTH_CPU": "1", "VLLM_MAX_NUM_SEQ": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(prepare, "GIVEN", given)
    monkeypatch.setattr("sys.argv", ["prepare", str(volume)])
    assert prepare.main() == Exit.BAD_SETTING
    said = capsys.readouterr().err
    assert "BERTH_CPU: no such setting" in said
    assert "VLLM_MAX_NUM_SEQ: no such setting" in said


@pytest.mark.parametrize("address", ["", "127.0.0.1", "::1", "[::1]", "localhost", "0.0.0.0", "::", "10.1.2.3", "box"])
@pytest.mark.parametrize("allowed", ["", "true", "True", "1", "false"])
def test_who_may_reach_the_service_without_a_key_is_what_the_service_itself_says(address: str, allowed: str) -> None:
    environ = {"BIND_ADDR": address, "LLM_ALLOW_NO_KEY": allowed}
    found = prepare.unlocked(environ)
    try:
        load(environ)
    except SettingsError as error:
        [(sentence, hint)] = error.problems
        assert [(f"{problem.sentence}.", problem.exit_code) for problem in found] == [(sentence, Exit.BAD_SETTING)]
        assert found[0].hint.lower() == hint.rstrip(".").lower()
    else:
        assert found == []


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("LLM_API_KEYS_FILE", "chmod 644"),
        ("LLM_TLS_CERT_FILE", "chmod 644"),
        ("LLM_TLS_KEY_FILE", "chmod 640"),
        ("AWS_SHARED_CREDENTIALS_FILE", "chmod 640"),
    ],
)
def test_files_of_this_machine_are_used_if_the_containers_user_may_read_them(
    tmp_path: Path, name: str, remedy: str
) -> None:
    file = tmp_path / "file"
    (problem,) = prepare.unreadable({name: str(file)})
    assert f"the file that {name} names cannot be read" in problem.sentence
    assert remedy in problem.hint
    file.write_text("key\n")
    assert prepare.unreadable({name: str(file)}) == []
    assert prepare.unlocked({"BIND_ADDR": "0.0.0.0", "LLM_API_KEYS_FILE": str(file)}) == []
