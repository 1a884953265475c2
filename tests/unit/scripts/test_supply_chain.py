"""Workflows and renovate.json hold what the linters cannot know: our scripts, our Dockerfiles, our versions."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RENOVATE: dict[str, Any] = json.loads((ROOT / "renovate.json").read_text())


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_script_of_a_step_is_one_of_ours_and_the_shell_is_clean(workflow: Path, tmp_path: Path) -> None:
    for step in steps(workflow):
        if not (text := step.get("run")):
            continue
        for script in re.findall(r"\bscripts/[\w-]+", text):
            assert os.access(ROOT / script, os.X_OK), script
        # GitHub runs a step by `bash -e`; its expressions belong into `env`, so none is left here.
        assert "${{" not in text
        shell = Path(sys.executable).with_name("shellcheck")
        options = ["--shell=bash", "--exclude=SC2086"] if text.strip() == "scripts/test ${LAYERS}" else ["--shell=bash"]
        done = subprocess.run([shell, *options, "-"], input=f"set -e\n{text}", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_a_release_makes_every_image_of_the_bake_file_and_a_sif_of_every_engine() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    devices = {file.suffix[1:] for file in ROOT.glob("Dockerfile.*")}
    assert set(jobs["sif"]["strategy"]["matrix"]["device"]) == devices
    engines = {f"vllm-{device}" for device in devices}
    assert set(jobs["image"]["strategy"]["matrix"]["target"]) == engines | {"llm", "router"}


def test_layers_that_github_is_asked_to_run_exist() -> None:
    said = subprocess.run([ROOT / "scripts/test", "--help"], capture_output=True, text=True, check=True).stdout
    layers = set(re.findall(r"^  ([a-z]+) {2,}", said.partition("Layers:")[2], re.MULTILINE))
    jobs = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text())["jobs"]
    asked = {layer for group in jobs["layers"]["strategy"]["matrix"]["layers"] for layer in group.split()}
    assert asked < layers


def renovated(patterns: list[str], path: str) -> bool:
    return any(re.search(pattern.strip("/").replace("\\\\", "\\"), path) for pattern in patterns)


def test_a_new_vllm_is_seen_wherever_its_number_stands() -> None:
    (manager,) = RENOVATE["customManagers"]
    # JavaScript's named groups are Python's with a P.
    expression = re.compile(manager["matchStrings"][0].replace("(?<", "(?P<"))
    devices = sorted(file.suffix[1:] for file in ROOT.glob("Dockerfile.*"))
    for device in devices:
        found = []
        for path in (f"Dockerfile.{device}", f"engine/install/{device}.sh"):
            assert renovated(manager["managerFilePatterns"], path), path
            found += [match["currentValue"] for match in expression.finditer((ROOT / path).read_text())]
        assert len(found) == 2, f"{device}: {found}"
        assert len(set(found)) == 1


def compiled() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.txt"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = [path for path in listed.stdout.split() if "uv pip compile" in (ROOT / path).read_text()[:300]]
    assert found
    return found


@pytest.mark.parametrize("path", compiled())
def test_compiled_requirements_are_kept_fresh_by_the_command_at_their_top(path: str) -> None:
    assert renovated(RENOVATE["pip-compile"]["managerFilePatterns"], path)
    # Renovate runs that command: what takes a value has an equals sign, and an option that it does not know ends it.
    command = shlex.split((ROOT / path).read_text().splitlines()[1].lstrip("# "))
    assert command[:5] == ["uv", "pip", "compile", "--universal", "--python-version=3.11"]
    assert "--generate-hashes" in command
    assert f"--output-file={path}" in command
    options = [word.partition("=")[0] for word in command[3:] if word.startswith("-")]
    known = {"--universal", "--python-version", "--generate-hashes", "--constraints", "--overrides", "--output-file"}
    assert set(options) <= known


@pytest.mark.parametrize("path", compiled())
def test_every_package_is_pinned_by_its_files_hashes(path: str) -> None:
    text = (ROOT / path).read_text()
    lines = [line for line in text.replace("\\\n", "").splitlines() if line and not line.lstrip().startswith("#")]
    pinned = re.compile(r"[\w.-]+(\[[\w,]+\])?==[^ ]+ .*--hash=sha256:[0-9a-f]{64}")
    assert [line for line in lines if not pinned.match(line)] == []
    # A registry of one site must not become everybody's, nor the few files that it has: these two are built for all.
    assert not re.search(r"^(--|.*\bfile:|.*://)", text, re.MULTILINE)
    for line in lines:
        if line.startswith(("pydantic-core==", "orjson==")):
            assert line.count("--hash") > 20
