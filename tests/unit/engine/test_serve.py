"""The launcher as a program: its modes, its exit codes, what it prints and what it keeps to itself."""

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def run(
    *args: str, home: Path, user: int | None = None, python: str = sys.executable, **environ: str
) -> subprocess.CompletedProcess[str]:
    clean = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "LLM_DEVICE": "cpu",
        "LLM_VLLM_MODEL_NAME": "demo",
    }
    settings = {name: value for name, value in {**clean, **environ}.items() if value != "-"}
    command = [python, "-P", "-m", "engine.serve", *args]
    return subprocess.run(command, env=settings, capture_output=True, text=True, user=user, cwd="/")


def test_dry_run_prints_the_command_and_every_decision(tmp_path: Path) -> None:
    done = run("--dry-run", home=tmp_path, VLLM_MAX_MODEL_LEN="1k")
    assert done.returncode == 0
    command = done.stdout
    for words in ("serve", "--max-model-len 1k", "--port 8008", "--shutdown-timeout 60", "VLLM_NO_USAGE_STATS=1"):
        assert words in command
    assert "--served-model-name demo" in command
    assert "HF_HUB_DISABLE_TELEMETRY=1" in command
    assert all(line.startswith("berth: ") and "(" in line for line in done.stderr.splitlines())


def test_flags_given_as_arguments_are_appended(tmp_path: Path) -> None:
    done = run("--dry-run", "--max-num-seqs", "4", home=tmp_path)
    assert done.stdout.strip().endswith("--max-num-seqs 4")


def test_a_program_is_run_as_it_is(tmp_path: Path) -> None:
    done = run("printf", "%s", "--port $LLM_VLLM_MODEL_NAME", home=tmp_path)
    assert done.stdout == "--port $LLM_VLLM_MODEL_NAME"
    assert done.stderr == ""


def test_a_model_name_in_a_programs_place_is_explained(tmp_path: Path) -> None:
    done = run("Qwen/Qwen3-0.6B", home=tmp_path)
    assert done.returncode == 3
    assert "the model is LLM_VLLM_MODEL_NAME" in done.stderr


def test_check_says_nothing_of_good_settings_and_needs_no_model(tmp_path: Path) -> None:
    done = run("--check", home=tmp_path, LLM_VLLM_MODEL_NAME="/not/here")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "environ",
    [
        {"VLLM_MAX_NUM_SEQ": "4"},
        {"LLM_VLLM_MODEL_NAME": ""},
        {"LLM_DEVICE": "abacus"},
        {"VLLM_SKIP_WARMUP": "true"},
        {"LLM_VLLM_MODEL_NAME": "/not/here"},
        {"VLLM_API_KEY_FILE": "/not/here"},
        {"HF_TOKEN_PATH": "/not/here"},
    ],
)
def test_bad_settings_end_with_code_2_and_a_hint(tmp_path: Path, environ: dict[str, str]) -> None:
    done = run("--dry-run", home=tmp_path, user=None, **environ)
    assert done.returncode == 2
    sentence, hint = done.stderr.splitlines()[-2:]
    assert sentence.startswith("berth: error: ")
    assert hint.startswith("berth: hint: ")
    assert "Traceback" not in done.stderr


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    done = run("--check", home=tmp_path, VLLM_DTYPE="x", VLLM_NO_SUCH="1", VLLM_MAX_NUM_SEQS="y")
    assert done.stderr.count("berth: error: ") == 3


def test_secrets_reach_vllm_and_no_output(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("from-a-file\n", encoding="utf-8")
    environ = {"HF_TOKEN": "hf_sesame", "VLLM_API_KEY_FILE": str(key), "LLM_VLLM_EXTRA_ARGS": "--host hf_sesame"}
    done = run("--dry-run", home=tmp_path, user=None, **environ)
    assert "VLLM_API_KEY=***" in shlex.split(done.stdout)
    assert "--host '***'" in done.stdout
    for secret in ("hf_sesame", "from-a-file"):
        assert secret not in done.stdout + done.stderr


def test_an_unreadable_catalog_is_a_missing_prerequisite(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text("[]", encoding="utf-8")
    done = run("--check", home=tmp_path, BERTH_CATALOG=str(tmp_path / "catalog.json"))
    assert done.returncode == 3
    assert "write_catalog" in done.stderr


def python_for_anyone() -> str:
    """A Python that any user may run: this one may stand in a folder that is root's alone."""
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        if all(folder.stat().st_mode & 0o001 for folder in Path(python).parents):
            return python
    pytest.skip("every Python here stands in a folder that only root may enter")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """The launcher and the demo model where any user may read them, as in an image."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("engine", "models/demo"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


@pytest.mark.skipif(os.getuid() != 0, reason="only root may take on an unknown uid")
def test_an_unknown_uid_with_home_at_the_root_gets_a_home_a_name_and_caches(open_folder: Path) -> None:
    with pytest.raises(KeyError):
        pwd.getpwuid(1000540000)
    python = python_for_anyone()
    done = run("--dry-run", home=Path("/"), user=1000540000, python=python, PYTHONPATH=str(open_folder))
    assert done.returncode == 0, done.stderr
    for words in ("HOME=/tmp/berth-home-1000540000", "USER=uid1000540000", "TORCHINDUCTOR_CACHE_DIR=/tmp/"):
        assert words in done.stdout


def test_the_launcher_imports_nothing_heavy(tmp_path: Path) -> None:
    program = "import sys; from engine import serve; serve.main(); print(*sorted(sys.modules), file=sys.stderr)"
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "LLM_DEVICE": "cpu"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "--dry-run"],
        env={**environ, "LLM_VLLM_MODEL_NAME": "demo"},
        capture_output=True,
        text=True,
    )
    loaded = {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}
    assert not {"vllm", "torch", "transformers", "numpy", "yaml", "asyncio", "multiprocessing"} & loaded


def test_the_program_takes_the_launchers_place_and_gets_the_signal(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    shell = "trap 'echo stopped; exit 7' TERM; echo $$; while :; do read -r -t 0.1 line <&3; done 3<>/dev/null"
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "engine.serve", "bash", "-c", shell],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == str(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "stopped\n"
    assert process.returncode == 7
