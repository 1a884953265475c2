"""A bundle checks itself and starts without a network: what it runs, it carries."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from berth import deployment as deployments
from berth.errors import BerthError
from berth.models import bundle, verify
from berth.models.bundle import Bundle
from berth.models.transfer import Transfer
from berth.paths import ROOT
from berth.progress import Progress
from tests.unit.models.conftest import MODEL, Fetch

# Stands in for Docker: writes down how it was called and with what; `save` makes the file.
DOCKER = """#!/bin/sh
echo "$@" >>"$CALLS"
env | grep -E '^(BERTH_|HF_|LLM_)' >"$CALLS.env"
[ "$1" != save ] || echo images >"$3"
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def make(folder: Path, cache: Path, model: str = MODEL, sif: Path | None = None) -> Bundle:
    shell = {"LLM_VLLM_MODEL_NAME": model, "BERTH_VERSION": "checkout"}
    wanted = deployments.resolve([ROOT / "env/cpu.env"], shell=shell)
    return bundle.make(folder, wanted, cache, ["berth/vllm-cpu:checkout"], sif, Transfer(Progress()))


def test_it_starts_in_a_network_namespace_of_its_own(
    fetching: Fetch, cache: Path, tmp_path: Path, docker: Path
) -> None:
    fetched = fetching()
    made = make(tmp_path / "bundle", cache)
    assert made.commit == fetched.commit
    moved = (tmp_path / "bundle").rename(tmp_path / "elsewhere")
    docker.write_text("")
    done = subprocess.run(["unshare", "--net", "--map-root-user", moved / "start"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    load, up = docker.read_text().splitlines()
    assert load == "load --quiet --input images.tar"
    assert up == "compose --env-file env/cpu.env up --no-build --pull never --detach --wait"
    said = dict(line.split("=", 1) for line in Path(f"{docker}.env").read_text().splitlines())
    assert said["BERTH_CACHE"] == str(moved / "models")
    assert (said["HF_HUB_OFFLINE"], said["BERTH_VERSION"]) == ("1", "checkout")
    assert said["LLM_VLLM_MODEL_NAME"] == MODEL  # here the shell had said it
    snapshot = moved / "models/hub/models--tests--tiny-llama/snapshots" / fetched.commit
    assert json.loads((snapshot / "config.json").read_text())["model_type"] == "llama"
    assert (moved / "berth/compose/base.yaml").exists()


def test_a_changed_byte_stops_it_before_anything_is_loaded(
    fetching: Fetch, cache: Path, tmp_path: Path, docker: Path
) -> None:
    fetching()
    folder = make(tmp_path / "bundle", cache).folder
    (folder / "images.tar").write_text("other images\n")
    docker.write_text("")
    done = subprocess.run([folder / "start"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "images.tar" in done.stdout + done.stderr
    assert docker.read_text() == ""
    verdict = verify.run(str(folder), "main", cache, Transfer(Progress()))
    assert verdict.wrong == ("images.tar: the checksum is wrong",)


def test_no_secret_of_this_machine_goes_along(fetching: Fetch, cache: Path, tmp_path: Path, docker: Path) -> None:
    fetching()
    folder = make(tmp_path / "bundle", cache).folder
    names = {place.name for place in folder.rglob("*")}
    assert not {"local.env", "site.env", "token"} & names


def test_a_sif_takes_the_place_of_images(fetching: Fetch, cache: Path, tmp_path: Path) -> None:
    fetching()
    (tmp_path / "x.sif").write_bytes(b"sif")
    folder = make(tmp_path / "bundle", cache, sif=tmp_path / "x.sif").folder
    assert (folder / "vllm-cpu.sif").read_bytes() == b"sif"
    assert not (folder / "start").exists()


def test_a_model_that_is_not_here_and_a_folder_in_use_are_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BerthError, match="is not in"):
        make(tmp_path / "bundle", cache)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(BerthError, match="not empty"):
        make(tmp_path / "full", cache, model="demo")
