"""The face: help, exit codes, errors as one sentence and a hint, JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from berth import __main__, runtimes
from berth.__main__ import main
from berth.errors import Exit, Problem

ROOT = Path(__file__).resolve().parents[3]
VERBS = ("up", "down", "status", "logs", "chat", "build", "render", "doctor", "plan")


@pytest.fixture
def berth(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run a command line in this process: (exit code, stdout, stderr). No Docker Engine answers."""
    monkeypatch.setattr(runtimes, "NAMES", ("native",))
    monkeypatch.setattr(__main__.signal, "signal", lambda *_: None)  # the test runner's handlers stay

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["berth", *words])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_two_examples_and_json(berth, verb: str) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = berth(verb, "--help")
    assert code == 0
    assert out.count("scripts/") >= 2
    assert "--json" in out
    assert "Exit codes: 0 ok, 1 failed" in " ".join(out.split())


@pytest.mark.parametrize("verb", ["up", "down", "build"])
def test_verbs_that_act_have_a_dry_run(berth, verb: str) -> None:  # type: ignore[no-untyped-def]
    assert "--dry-run" in berth(verb, "--help")[1]


def test_help_loads_no_library_that_a_verb_needs() -> None:
    heavy = "docker", "httpx", "dotenv", "asyncio"
    code = (
        "import sys; sys.argv = ['berth', 'up', '--help']; from berth.__main__ import main; main();"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["frob"], "No such command 'frob'"),
        (["up", "--timeout", "soon"], "Invalid value for '--timeout'"),
        (["up", "--nope"], "No such option"),
        (["up", "--device", "gpu"], "gpu: no such device"),
        (["up", "--runtime", "k8s", "--env", "env/models/demo.env"], "k8s: no such runtime"),
        (["up", "--env", "/nowhere.env"], "/nowhere.env: no such file"),
        (["logs", "cache"], "cache: no such part"),
        (["doctor", "--device", "gpu"], "gpu: no such device"),
    ],
)
def test_bad_usage_is_one_sentence_a_hint_and_exit_code_2(berth, words: list[str], said: str) -> None:  # type: ignore[no-untyped-def]
    code, out, err = berth(*words)
    assert code == 2
    sentence, hint = err.strip().splitlines()[-2:]
    assert sentence.startswith("berth: error: ")
    assert said in sentence
    assert hint.startswith("berth: hint: ")
    assert "Traceback" not in out + err


def test_errors_are_json_too(berth) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = berth("up", "--json", "--env", "/nowhere.env")
    said = json.loads(out)
    assert code == said["exit_code"] == 2
    assert said["problems"][0]["error"] == "/nowhere.env: no such file"


def test_a_traceback_is_shown_with_debug_only(berth, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(runtimes, "running", broken)
    code, _, err = berth("status")
    assert (code, "RuntimeError: a fault" in err, "Traceback" in err) == (1, True, False)
    with pytest.raises(RuntimeError, match="a fault"):
        berth("status", "--debug")


def test_ctrl_c_has_the_shells_own_exit_code(berth, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runtimes, "running", interrupted)
    assert berth("status")[0] == 130


def test_doctor_fails_for_what_was_asked_for_and_only_for_that(berth, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from engine import devices

    monkeypatch.setattr(devices.load("hpu"), "detect", lambda: None)
    assert berth("doctor")[0] == Exit.OK
    code, out, _ = berth("doctor", "--device", "hpu", "--json")
    assert code == Exit.MISSING_PREREQUISITE
    (missing,) = [check for check in json.loads(out)["checks"] if check["required"] and not check["ok"]]
    assert missing["scope"] == "hpu"
    assert missing["remedy"]


def test_doctor_names_the_remedy_of_a_runtime_that_is_missing(berth, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from berth.host import dockers

    monkeypatch.setattr(runtimes, "NAMES", ("compose", "native"))
    monkeypatch.setattr(dockers, "problem", lambda: Problem("no engine", "start it", Exit.MISSING_PREREQUISITE))
    code, out, _ = berth("doctor", "--runtime", "compose")
    assert code == Exit.MISSING_PREREQUISITE
    assert "no engine\tstart it" in out


def test_doctor_says_what_the_service_would_refuse_of_the_settings(berth, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def found() -> dict[str, object]:
        code, out, _ = berth("doctor", "--json")
        assert code == Exit.OK
        (check,) = [check for check in json.loads(out)["checks"] if check["check"] == "settings of the service"]
        return dict(check)

    assert found()["found"] == "for 127.0.0.1, no key"
    monkeypatch.setenv("BIND_ADDR", "0.0.0.0")
    open_to_all = found()
    assert not open_to_all["ok"]
    assert "key" in str(open_to_all["found"])
    assert "LLM_API_KEYS_FILE" in str(open_to_all["remedy"])


def test_a_dry_run_prints_commands_and_starts_nothing(berth, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(runtimes, "running", lambda: pytest.fail("a dry run asks nobody"))
    code, out, _ = berth("up", "--runtime", "native", "--env", "env/models/demo.env", "--dry-run", "--device", "cpu")
    assert code == 0
    assert "engine/install/cpu.sh" in out
    assert "-P -m engine.serve" in out
    assert "-P -m llm_service" in out


def test_render_shows_what_the_launcher_makes_of_the_settings(berth, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("VLLM_MAX_NUM_SEQS", "7")
    words = ("--runtime", "native", "--device", "cpu", "--env", str(ROOT / "env/models/demo.env"))
    code, out, err = berth("render", *words)
    assert (code, err) == (0, "berth: device cpu (--device); runtime native (--runtime)\n")
    assert "--max-num-seqs 7" in out
    assert "--host 127.0.0.1" in out
    assert "--served-model-name demo" in out
    assert "hf_secret" not in out
