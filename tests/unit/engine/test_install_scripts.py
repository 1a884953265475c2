"""What engine/install/<device>.sh says when it is called wrongly, or where something is missing."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine import devices

INSTALL = Path(__file__).resolve().parents[3] / "engine" / "install"
SCRIPTS = [INSTALL / f"{device}.sh" for device in devices.names()]
NEEDED = ("bash", "env", "dirname", "realpath", "cat", "sha256sum", "cut", "mkdir", "sh")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder for PATH with the few programs that every script uses, and an uv that must not be called."""
    for name in NEEDED:
        found = shutil.which(name)
        assert found
        (tmp_path / name).symlink_to(found)
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho uv was called >&2\nexit 99\n")
    uv.chmod(0o755)
    return tmp_path


def run(script: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/bash", script, *args], env=environ, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.parametrize("args", [(), ("--prune",), ("--no-such-option",), ("one", "two")])
def test_a_wrong_call_gets_the_usage(script: Path, args: tuple[str, ...], bare: Path) -> None:
    done = run(script, *args, PATH=str(bare))
    assert done.returncode == 2
    assert done.stderr.startswith("Usage:")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_missing_uv_is_named(script: Path, bare: Path) -> None:
    (bare / "uv").unlink()
    done = run(script, str(bare / "venv"), PATH=str(bare))
    assert done.returncode == 3
    assert "berth: error: uv is missing" in done.stderr


def test_cuda_asks_for_a_compiler_before_it_downloads(bare: Path) -> None:
    done = run(INSTALL / "cuda.sh", str(bare / "venv"), PATH=str(bare))
    assert done.returncode == 3
    assert "a C++ compiler is missing" in done.stderr
    assert "hint: install g++" in done.stderr


def test_hpu_refuses_a_python_without_pytorch_for_gaudi(bare: Path) -> None:
    done = run(INSTALL / "hpu.sh", str(bare / "venv"), PATH=str(bare), UV_PYTHON=sys.executable)
    assert done.returncode == 3
    assert f"{sys.executable} has no PyTorch for Gaudi" in done.stderr
    assert "uv was called" not in done.stderr


def test_the_service_gets_its_pinned_orjson_and_no_hash_of_the_list() -> None:
    script = f'source "{INSTALL}/common.sh"; install_service printf "%s\\n"'
    words = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert words[0] == "--requirement"
    assert words[1].endswith("microservice/requirements.in")
    assert re.fullmatch(r"orjson==[\d.]+", words[2])
    assert len(words) == 3
