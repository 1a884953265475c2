"""Setting up from nothing: uv is found or installed; environments are made anew only when their pins change."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
FAKE_UV = """#!/bin/sh
if [ "$1" = --version ]; then echo "uv ${FAKE_VERSION:-0.9.0}"; exit; fi
echo "$@" "index=$UV_DEFAULT_INDEX" >>"$FAKE_LOG"
[ -z "$FAKE_FAILS" ] || exit 1
for last; do :; done
if [ "$1" = venv ]; then mkdir -p "$last/bin" && ln -sf "$REAL_PYTHON" "$last/bin/python"; fi
"""


@pytest.fixture
def get_uv() -> ModuleType:
    spec = importlib.util.spec_from_file_location("get_uv", ROOT / "scripts/lib/get_uv.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_uv(file: Path, text: str = FAKE_UV) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def ask(module: ModuleType, directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["get_uv.py", str(directory)])
    code: int = module.main()
    return code


def test_a_uv_on_path_is_used(
    get_uv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = write_uv(tmp_path / "bin/uv")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert ask(get_uv, tmp_path / "private", monkeypatch) == 0
    assert capsys.readouterr().out == f"{found}\n"


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho uv 0.1.0\n", "no program"])
def test_a_uv_that_does_not_run_or_is_too_old_is_passed_over(
    get_uv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    write_uv(tmp_path / "bin/uv", text)
    private = write_uv(tmp_path / "private/bin/uv")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert ask(get_uv, tmp_path / "private", monkeypatch) == 0
    assert capsys.readouterr().out == f"{private}\n"


def fails(_: Path) -> None:
    raise RuntimeError("no network")


def test_the_ways_to_install_uv_are_tried_in_order(
    get_uv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    fails.__name__ = "by_venv"
    monkeypatch.setattr(get_uv, "by_venv", fails)
    monkeypatch.setattr(get_uv, "by_pip", lambda directory: write_uv(directory / "bin/uv"))
    monkeypatch.setattr(get_uv, "by_installer", lambda _: pytest.fail("the way before it worked"))
    assert ask(get_uv, tmp_path / "private", monkeypatch) == 0
    assert capsys.readouterr().out == f"{tmp_path}/private/bin/uv\n"


def test_when_no_way_works_one_sentence_names_the_package(
    get_uv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for way in ("by_venv", "by_pip", "by_installer"):
        monkeypatch.setattr(get_uv, way, fails)
    assert ask(get_uv, tmp_path / "private", monkeypatch) == 3
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("berth: error: no way to install uv worked")
    assert "python3-venv" in hint
    assert not (tmp_path / "private").exists()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the scripts, one requirements file and a uv that only takes notes."""
    root = tmp_path / "kit"
    shutil.copytree(ROOT / "scripts/lib", root / "scripts/lib")
    (root / "berth").mkdir()
    shutil.copy(ROOT / "berth/package_sources.py", root / "berth")
    (root / "pins.txt").write_text("a==1\n")
    write_uv(tmp_path / "bin/uv")
    return root


def make(checkout: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    base = checkout.parent
    return subprocess.run(
        [
            "bash",
            "-euc",
            f'source "{checkout}/scripts/lib/setup.sh"; berth_venv "$BERTH_ROOT/.berth/venv" pins.txt; echo went on',
        ],
        env={
            "PATH": f"{base}/bin:{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(base),
            "FAKE_LOG": str(base / "log"),
            "REAL_PYTHON": sys.executable,
            **environ,
        },
        capture_output=True,
        text=True,
        cwd=base,
    )


def calls(checkout: Path) -> list[str]:
    log = checkout.parent / "log"
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def test_an_environment_is_made_once_and_again_only_when_its_pins_change(checkout: Path, tmp_path: Path) -> None:
    done = make(checkout)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "berth: setting up .berth/venv\n"
    assert calls(checkout) == ["venv", "pip"]
    again = make(checkout)
    assert (again.returncode, again.stdout, again.stderr) == (0, "went on\n", "")
    assert calls(checkout) == ["venv", "pip"]
    (checkout / "pins.txt").write_text("a==2\n")
    assert make(checkout).returncode == 0
    assert calls(checkout) == ["venv", "pip"] * 2


def test_a_moved_checkout_makes_its_environments_anew(checkout: Path) -> None:
    make(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    assert make(moved).returncode == 0
    assert calls(moved) == ["venv", "pip"] * 2


def test_uv_is_told_what_pip_was_told(checkout: Path) -> None:
    make(checkout, PIP_INDEX_URL="https://mirror.example/simple")
    assert "index=https://mirror.example/simple" in (checkout.parent / "log").read_text()


def test_a_failed_installation_is_said_and_tried_again_the_next_time(checkout: Path) -> None:
    done = make(checkout, FAKE_FAILS="1")
    assert done.returncode == 1
    assert "berth: error: could not install pins.txt" in done.stderr
    assert "went on" not in done.stdout
    assert make(checkout).returncode == 0


def test_missing_pins_are_said(checkout: Path) -> None:
    (checkout / "pins.txt").unlink()
    done = make(checkout)
    assert done.returncode == 1
    assert "cannot read pins.txt" in done.stderr


def test_without_a_python_that_is_new_enough_the_package_is_named(checkout: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for program in ("bash", "cat", "sha256sum", "flock", "mkdir", "dirname"):
        found = shutil.which(program)
        assert found
        (empty / program).symlink_to(os.path.realpath(found))
    done = make(checkout, PATH=str(empty))
    assert done.returncode == 3
    assert "no Python 3.11 or newer on PATH" in done.stderr
    assert "python3" in done.stderr.splitlines()[-1]
