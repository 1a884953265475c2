"""`berth bundle`: what a site without a network needs to start a deployment, in one folder that checks itself.

DIR/start           checks SHA256SUMS, loads the images, and runs Docker Compose
DIR/images.tar      the images of the deployment, or DIR/vllm-DEVICE.sif for Apptainer
DIR/models/hub/…    the model, at one commit
DIR/berth/…         this checkout's compose/, env/ and apptainer/
DIR/SHA256SUMS      of all of it
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berth.deployment import Deployment
from berth.errors import Exit, failed
from berth.models import sums
from berth.models.hubcache import Repository, located
from berth.models.transfer import Transfer, must_have_room
from berth.paths import ROOT
from engine import names
from engine.phases import Phase

_REVISION = "VLLM_REVISION"
_PARTS = ("compose", "env", "apptainer")
_PRIVATE = shutil.ignore_patterns("local.env", "site.env", "__pycache__", "*.pyc", "*.sif")
_START = """\
#!/usr/bin/env bash
# Checks this folder, loads its images, and starts the deployment. Needs Docker with Compose 2.30, and no network.
# Further words go to docker compose up. To stop it: docker compose -p berth down
set -euo pipefail
cd "$(dirname "$(readlink -f "${{BASH_SOURCE[0]}}")")"
sha256sum --quiet --check SHA256SUMS
docker load --quiet --input images.tar
export BERTH_CACHE=$PWD/models HF_HUB_OFFLINE=1 {exports}
cd berth
exec docker compose {files} up --no-build --pull never --detach --wait "$@"
"""


@dataclass(frozen=True)
class Bundle:
    """What was put together."""

    folder: Path
    model: str
    commit: str
    images: tuple[str, ...]
    bytes: int

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {**vars(self), "folder": str(self.folder), "images": list(self.images)}


def make(
    folder: Path, deployment: Deployment, cache: Path, images: Sequence[str], sif: Path | None, transfer: Transfer
) -> Bundle:
    """Put the folder together; SHA256SUMS comes last. Raises BerthError."""
    if folder.exists() and any(folder.iterdir()):
        raise failed(f"{folder} is not empty", "name a folder that is not there yet", Exit.BAD_SETTING)
    # The demo model is in every image.
    revision = deployment.value(_REVISION, "main")
    chosen = located(cache, deployment.model, revision) if deployment.model != names.DEMO else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        commit = _copy_model(*chosen, revision, folder / "models" / "hub", transfer) if chosen else ""
        (folder / "models" / "hub").mkdir(parents=True, exist_ok=True)
        for part in _PARTS:
            shutil.copytree(ROOT / part, folder / "berth" / part, ignore=_PRIVATE)
        if sif:
            shutil.copyfile(sif, folder / f"vllm-{deployment.device}.sif")
        else:
            _save(images, folder / "images.tar", transfer)
            start = folder / "start"
            start.write_text(_start(deployment), encoding="utf-8")
            start.chmod(0o755)
        size = _sum_up(folder, transfer)
    except OSError as error:
        raise failed(
            f"cannot write {folder}: {error.strerror or error}", "make room, or name another folder"
        ) from error
    return Bundle(folder, deployment.model, commit, () if sif else tuple(images), size)


def _copy_model(source: Repository, commit: str, revision: str, hub: Path, transfer: Transfer) -> str:
    """The commit's contents, its links, and the names that mean it: main, and that by which it was asked for."""
    files = list(source.files(commit))
    if lost := [file.path for file in files if file.size < 0 or not file.blob]:
        hint = f"scripts/berth verify {source.model} says what is wrong with it"
        raise failed(f"{source.model} is not whole: {', '.join(lost[:3])}", hint)
    must_have_room(hub, sum(file.size for file in files), source.model)
    target = Repository(hub, source.model)
    target.blobs.mkdir(parents=True)
    for file in files:
        transfer.progress.show(Phase("copying the model", detail=file.path))
        if not (target.blobs / file.blob).exists():
            shutil.copyfile(source.blobs / file.blob, target.blobs / file.blob)
    target.link(commit, files)
    for name in ("main", revision):
        target.refer(name, commit)
    return commit


def _save(images: Sequence[str], path: Path, transfer: Transfer) -> None:
    transfer.progress.show(Phase("saving the images", detail=", ".join(images)))
    done = subprocess.run(["docker", "save", "--output", str(path), *images], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        hint = "build them first: scripts/berth build"
        raise failed(f"docker save: {said[-1] if said else done.returncode}", hint, Exit.MISSING_PREREQUISITE)


def _start(deployment: Deployment) -> str:
    """The script for the other side; the env files are named as they lie below berth/. Raises BerthError."""
    files = []
    for file in deployment.files:
        if file.name == "local.env":
            continue  # its secrets stay here
        if not file.is_relative_to(ROOT / "env"):
            raise failed(f"{file} is not in {ROOT / 'env'}", "copy it there, and name the copy", Exit.BAD_SETTING)
        files += ["--env-file", str(file.relative_to(ROOT))]
    # What the shell or local.env may have said, and what must be what was bundled.
    chosen = {name: deployment.value(name) for name in ("BERTH_REGISTRY", "BERTH_VERSION", names.MODEL, _REVISION)}
    exports = shlex.join(f"{name}={value}" for name, value in chosen.items() if value)
    return _START.format(exports=exports, files=shlex.join(files))


def _sum_up(folder: Path, transfer: Transfer) -> int:
    """Write SHA256SUMS; links need none, since what they lead to is in it. Returns the bytes of all files."""
    places = sorted(place for place in folder.rglob("*") if place.is_file() and not place.is_symlink())
    known: dict[str, str] = {}

    def work_out(place: Path) -> None:
        known[os.path.relpath(place, folder)] = sums.sha256(place, transfer)

    total = sum(place.stat().st_size for place in places)
    transfer.run("checking", [lambda place=place: work_out(place) for place in places], total, workers=4)  # type: ignore[misc]
    (folder / sums.FILE).write_text(sums.text(known.items()), encoding="utf-8")
    return total
