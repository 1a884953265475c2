"""scripts/sbom on the service's image: its lists are what the image itself says it holds."""

import json
import os
import subprocess
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

pytestmark = pytest.mark.image

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("BERTH_TEST_IMAGE_LLM") or "berth/llm:0.1.0"
ASK_PYTHON = """
import importlib.metadata, sysconfig
for found in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")]):
    print(f"{found.name}=={found.version}")
"""


def normal(pin: str) -> str:
    return pin.strip().lower().replace("_", "-").replace(".", "-")


def test_it_names_every_package_of_the_image_with_its_licence(engine: docker.DockerClient, tmp_path: Path) -> None:
    try:
        engine.images.get(IMAGE)
    except ImageNotFound:
        pytest.skip(f"{IMAGE} is not built here (docker buildx bake llm, or name one: BERTH_TEST_IMAGE_LLM)")
    command = [ROOT / "scripts/sbom", IMAGE, "--name", "llm", "--to", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llm.cdx.json", "llm.licences.txt", "llm.python.txt"]
    assert json.loads((tmp_path / "llm.cdx.json").read_text())["bomFormat"] == "CycloneDX"

    def say(*words: str) -> list[str]:
        said: bytes = engine.containers.run(IMAGE, list(words[1:]), entrypoint=words[0], remove=True)
        return said.decode().splitlines()

    listed = {normal(line) for line in (tmp_path / "llm.python.txt").read_text().splitlines()}
    there = {normal(line) for line in say("/opt/venv/bin/python", "-c", ASK_PYTHON)}
    assert there <= listed
    licences = (tmp_path / "llm.licences.txt").read_text().splitlines()
    debian = {line.split()[1] for line in licences if line.startswith("deb ")}
    assert set(say("dpkg-query", "--show", "--showformat", "${Package}\n")) == debian
    assert [line for line in licences if line.startswith("pypi ") and line.endswith("not stated")] == []


def test_an_image_that_is_not_there_is_refused_and_leaves_no_file(engine: docker.DockerClient, tmp_path: Path) -> None:
    command = [ROOT / "scripts/sbom", "docker:berth-test/no-such-image:1", "--to", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "berth: error: Syft could not read docker:berth-test/no-such-image:1" in done.stderr
    assert list(tmp_path.iterdir()) == []
