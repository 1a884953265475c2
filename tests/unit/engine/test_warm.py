"""Warming: the command that serves, on a socket of its own, ended once it answers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import warm

ROOT = Path(__file__).resolve().parents[3]
CPU = {"LLM_DEVICE": "cpu", "LLM_VLLM_MODEL_NAME": "demo", "LLM_VLLM_PORT": "8123", "LLM_PHASE_FILE": "/tmp/phase"}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A `vllm` that is the stub, in an environment of its own."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m tests.support.stub_vllm "$@"\n')
    program.chmod(0o755)
    python = program.with_name("python")
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), **CPU}


def run(environ: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    # The launcher looks for vLLM beside its own Python.
    code = f"import sys; sys.prefix = {str(Path(environ['HOME']))!r}; sys.argv = ['serve']; "
    start = [sys.executable, "-P", "-c", code + "from engine.serve import main; sys.exit(main())"]
    words = f"import subprocess, sys; real = subprocess.Popen; args = {start!r}; "
    words += "subprocess.Popen = lambda argv, **how: real(args, **how); from engine.warm import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-P", "-c", words], env={**environ, **more}, capture_output=True, text=True, timeout=120
    )


def test_it_ends_well_once_the_engine_answers(environ: dict[str, str]) -> None:
    done = run(environ)
    assert done.returncode == 0, done.stderr
    assert "berth: warm: the engine answers after" in done.stderr
    assert "Shutting down" in done.stdout + done.stderr


def test_an_engine_that_does_not_start_gives_its_code(environ: dict[str, str]) -> None:
    assert run(environ, STUB_EXIT="7").returncode == 7
    assert run(environ, VLLM_MAX_MODEL_LEN="many").returncode == 2


def test_only_the_address_differs_from_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CPU.items():
        monkeypatch.setenv(name, value)
    socket = tmp_path / "s"
    serving, warming = dict(os.environ), warm.environment(socket)
    said = []
    for environ in (serving, warming):
        command = [sys.executable, "-P", "-m", "engine.serve", "--dry-run"]
        given = {**environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
        said.append(subprocess.run(command, env=given, capture_output=True, text=True, check=True).stdout.split())
    assert set(said[0]) - set(said[1]) == {"--host", "127.0.0.1", "--port", "8123", *announcing(said[0])}
    assert set(said[1]) - set(said[0]) == {"--uds", str(socket)}


def announcing(words: list[str]) -> set[str]:
    """Nobody asks what a start does that nobody waits for; logging does not enter the key of compiled code."""
    return {word for word in words if word.startswith("VLLM_LOGGING_STREAM=")}
