"""scripts/release-notes: a release's part of the changelog, refused where the files say something else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FILES = ["CHANGELOG.md", "pyproject.toml", "scripts/release-notes", *(file.name for file in ROOT.glob("Dockerfile.*"))]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def notes(checkout: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, checkout / "scripts/release-notes", *words], capture_output=True, text=True)


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_the_part_of_this_checkouts_release_names_vllm_and_base_of_every_image(checkout: Path) -> None:
    change(checkout / "CHANGELOG.md", "## 0.1.0", "## 0.2.0\n\nLater.\n\n## 0.1.0")
    done = notes(checkout, "v0.1.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "| `vllm-hpu` | 0.26.0 |" in done.stdout
    assert "Later" not in done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("pyproject.toml", 'version = "0.1.0"', 'version = "0.1.1"', "pyproject.toml says 0.1.1, not 0.1.0"),
        ("CHANGELOG.md", "## 0.1.0", "## 0.1.1", "CHANGELOG.md has no part for 0.1.0"),
        ("Dockerfile.cuda", "ARG VLLM_VERSION=0.", "ARG VLLM_VERSION=1.", "does not say that vllm-cuda is vLLM 1."),
        ("Dockerfile.cpu", "slim-bookworm", "slim-trixie", "on python:3.11-slim-trixie"),
    ],
)
def test_a_file_that_says_something_else_is_named(checkout: Path, file: str, old: str, new: str, said: str) -> None:
    change(checkout / file, old, new)
    done = notes(checkout, "v0.1.0")
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stdout == ""


def test_a_base_that_is_pinned_by_digest_is_still_that_base(checkout: Path) -> None:
    change(checkout / "Dockerfile.cpu", "3.11-slim-bookworm\n", f"3.11-slim-bookworm@sha256:{'0' * 64}\n")
    assert notes(checkout, "v0.1.0").returncode == 0


@pytest.mark.parametrize("words", [(), ("main",), ("v1",), ("v0.1.0", "v0.1.0")])
def test_what_is_no_release_is_bad_usage(checkout: Path, words: tuple[str, ...]) -> None:
    assert notes(checkout, *words).returncode == 2
