"""The pages: links lead somewhere, commands exist, what is documented is what there is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "models/demo/README.md",
]
COMMAND_LINE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
# `path` or `path/` in a text, where its first part is something at the top of this repository.
_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)`")


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = [target for target in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_path_that_is_named_exists(page: Path) -> None:
    named = {path for path in _PATH.findall(page.read_text(encoding="utf-8")) if (ROOT / path.split("/")[0]).exists()}
    named = {path for path in named if not path.startswith(".berth/")}  # made by what runs
    invented = {"env/local.env", "env/node.env", "apptainer/site.env"} | {path for path in named if "rocm" in path}
    assert sorted(path for path in named - invented if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_script_that_is_told_to_run_can_be(page: Path) -> None:
    told = set(
        re.findall(r"^ *((?:scripts|benchmarks|tests/lab)/[\w-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert sorted(script for script in told if not os.access(ROOT / script, os.X_OK)) == []


def berth(*args: str) -> str:
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'microservice'}", "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "berth", *args], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout


def verbs() -> list[str]:
    listed = berth("--help").partition("Commands")[2]
    return re.findall(r"^│ ([a-z]+) ", listed, re.MULTILINE)


def test_every_verb_is_documented_and_no_other() -> None:
    assert re.findall(r"^\| `([a-z]+)` \|", COMMAND_LINE, re.MULTILINE) == verbs()


def test_every_verb_has_examples_and_exit_codes_in_its_help() -> None:
    for verb in verbs():
        said = berth(verb, "--help")
        assert said.count("scripts/") >= 2, verb
        assert "Exit codes" in said, verb


def test_every_env_file_of_a_device_has_a_row_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| `(env/\w+\.env)` \|", readme, re.MULTILINE)
    assert sorted(rows) == sorted(
        shown(file) for file in (ROOT / "env").glob("*.env") if file.name not in ("local.env", "node.env")
    )
