"""The overlays for quantizing: the engine's own service with another program, so that what it writes is found again."""

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compose.conftest import MakeProject
from tests.support.compose import ROOT, Project, docker, needs_engine

Rendered = Callable[..., Project]
HPU = "compose/base.yaml:compose/settings.yaml:compose/hpu.yaml"


def mounts(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {mount["target"]: mount for mount in service["volumes"]}


def test_gaudi_is_calibrated_with_the_image_the_cards_and_the_mounts_that_serve(rendered: Rendered) -> None:
    serving = rendered("env/hpu.env").config()["services"]["engine"]
    shell = {"COMPOSE_FILE": f"{HPU}:compose/quantize.yaml", "FP8_DATASET_PATH": "/srv/samples.jsonl"}
    calibrating = rendered("env/hpu.env", shell=shell).config()["services"]["engine"]
    assert calibrating["environment"] == {**serving["environment"], "FP8_DATASET_PATH": "/srv/samples.jsonl"}
    for same in ("image", "runtime", "read_only", "tmpfs", "cap_drop", "shm_size"):
        assert calibrating[same] == serving[same], same
    extra = mounts(calibrating)
    data = extra.pop("/run/calibration")
    assert (data["source"], data["read_only"]) == ("/srv/samples.jsonl", True)
    assert extra == mounts(serving)
    assert calibrating["restart"] == "no"
    assert "engine.quantize.calibrate" in calibrating["command"]
    assert "--trust-pickle=false" in calibrating["command"]


def test_without_a_calibration_set_compose_says_which_name_is_missing(rendered: Rendered) -> None:
    done = rendered("env/hpu.env", shell={"COMPOSE_FILE": f"{HPU}:compose/quantize.yaml"}).run("config", check=False)
    assert done.returncode
    assert "FP8_DATASET_PATH" in done.stderr


def test_the_programs_arguments_arrive_and_off_gaudi_it_refuses(project: MakeProject, tmp_path: Path) -> None:
    """A container of the stand-in image: the launcher's own code is real."""
    data = tmp_path / "samples.jsonl"
    data.write_text(json.dumps({"text": "Once"}) + "\n")
    tmp_path.chmod(0o755)
    files = "compose/base.yaml:compose/settings.yaml:compose/cpu.yaml:compose/quantize.yaml"
    shell = {"COMPOSE_FILE": files, "FP8_DATASET_PATH": str(data)}
    done = project("env/cpu.env", "env/models/demo.env", shell=shell).run("run", "--rm", "-T", "engine", check=False)
    assert done.returncode == 2, done.stderr
    assert "is for Gaudi, and this is cpu" in done.stderr + done.stdout


def test_llm_compressor_gets_the_engines_cards_and_an_image_of_its_own(rendered: Rendered) -> None:
    serving = rendered("env/cuda.env").config()["services"]["engine"]
    files = "compose/base.yaml:compose/settings.yaml:compose/cuda.yaml:compose/compress.yaml"
    config = rendered("env/cuda.env", shell={"COMPOSE_FILE": files, "LLM_DEVICE": "cuda"}).config()["services"]
    engine = config["engine"]
    assert engine["image"] == config["prepare"]["image"] == "berth/quantize-cuda:0.1.0"
    assert engine["deploy"] == serving["deploy"]
    assert engine["build"]["dockerfile"] == "engine/quantize/Dockerfile"
    assert engine["build"]["args"]["DEVICE"] == "cuda"
    assert mounts(engine) == mounts(serving)


@pytest.mark.docker
def test_the_image_of_llm_compressor_has_the_lists_by_which_the_first_step_knows_settings(tmp_path: Path) -> None:
    """A build of nothing but the files, with what is left out for the real one."""
    needs_engine()
    shutil.copy(ROOT / "engine/quantize/Dockerfile.dockerignore", tmp_path / "Dockerfile.dockerignore")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY engine /engine\n")
    told = f"--output=type=tar,dest={tmp_path / 'files.tar'}"
    docker("buildx", "build", "--quiet", f"--file={tmp_path / 'Dockerfile'}", told, str(ROOT))
    with tarfile.open(tmp_path / "files.tar") as files:
        names = files.getnames()
    tracked = {f"engine/catalogs/{path.name}" for path in (ROOT / "engine/catalogs").glob("*.json")}
    assert tracked
    assert tracked <= set(names)
    assert not [name for name in names if "__pycache__" in name]
