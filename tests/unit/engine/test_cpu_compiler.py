"""A machine without a C++ compiler serves a model uncompiled instead of dying when it compiles it."""

from pathlib import Path

import pytest

from engine.decisions import Situation
from engine.devices import cpu


def words(environ: dict[str, str] | None = None, **values: str) -> list[str]:
    return [word for decision in cpu.tune(Situation(environ or {}, values, None)) for word in decision.args]


def test_without_a_compiler_the_model_is_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    decisions = {word: decision for decision in cpu.tune(Situation({}, {}, None)) for word in decision.args}
    assert "g++" in decisions["--enforce-eager"].why


def test_without_pythons_headers_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert "--enforce-eager" in words()


def test_what_the_user_says_of_compiling_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "--enforce-eager" not in words(None, **{"optimization-level": "0"})


def test_with_a_compiler_of_ones_own_it_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, header = tmp_path / "own-c++", tmp_path / "Python.h"
    compiler.touch(mode=0o755)
    header.touch()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert "--enforce-eager" not in words({"CXX": str(compiler)})
