"""A packed model is served from a folder that appears whole, once, and nowhere else."""

import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from engine import packed, serve
from engine.model import cache_below
from engine.packed import BadPack
from tests.support.packs import untar

COMMIT = "c" * 40


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    if link:
        entry.type, entry.linkname = tarfile.SYMTYPE, link
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A tar as `berth fetch --tar` writes it."""
    path = tmp_path / "org--name.tar"
    with tarfile.open(path, "w") as tar:
        inside = "org--name/models--org--name"
        add(tar, f"{inside}/blobs/abc", b'{"model_type": "llama"}')
        add(tar, f"{inside}/refs/main", COMMIT.encode())
        add(tar, f"{inside}/snapshots/{COMMIT}/config.json", link="../../blobs/abc")
        add(tar, "org--name/version.txt", b"model=org/name\n")
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HF_HOME": str(tmp_path / "home")}


def unpack(name: object, environ: dict[str, str], said: list[str] | None = None) -> packed.Unpacked | None:
    return packed.unpack(str(name), environ, ([] if said is None else said).append)


def test_a_tar_is_unpacked_once_and_its_snapshot_is_served(pack: Path, environ: dict[str, str]) -> None:
    said: list[str] = []
    found = unpack(pack, environ, said)
    assert found is not None
    assert (found.folder.name, found.name) == (COMMIT, "org/name")
    assert json.loads((found.folder / "config.json").read_text()) == {"model_type": "llama"}
    assert unpack(pack, environ, said) == found
    assert len(said) == 1


def test_engines_that_start_together_unpack_once(pack: Path, environ: dict[str, str]) -> None:
    said: list[str] = []
    threads = [threading.Thread(target=unpack, args=(pack, environ, said)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 1


def test_half_a_tar_is_refused_and_leaves_nothing_to_serve(pack: Path, environ: dict[str, str], tmp_path: Path) -> None:
    pack.write_bytes(pack.read_bytes()[:1800])
    with pytest.raises(BadPack, match=r"no whole tar|holds no model"):
        unpack(pack, environ)
    assert not [each for each in (tmp_path / "home" / "berth-unpacked").iterdir() if each.is_dir()]


def test_a_tar_cannot_write_outside(tmp_path: Path, environ: dict[str, str]) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "../../escaped", b"x")
    with pytest.raises(BadPack):
        unpack(path, environ)
    assert not (tmp_path / "home" / "escaped").exists()
    assert not (tmp_path / "escaped").exists()


def test_a_folder_with_a_models_cache_in_it_is_served_from_its_snapshot(pack: Path, tmp_path: Path) -> None:
    untar(pack, tmp_path / "mounted")
    top = tmp_path / "mounted" / "org--name"
    for folder in (top.parent, top, top / "models--org--name"):
        found = unpack(folder, {})
        assert found is not None
        assert found.folder.name == COMMIT


def test_names_and_plain_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in ("org/name", "s3://bucket/models/llama/abc1234", "demo", str(tmp_path), "/nowhere/model.tar"):
        assert unpack(name, {}) is None


def test_a_squashfs_image_is_unpacked_by_its_own_program_or_refused_with_a_way_out(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "model.squashfs"
    image.write_bytes(b"hsqs")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(BadPack, match="unsquashfs is not here") as caught:
        unpack(image, environ)
    assert "squashfuse" in caught.value.problem.hint
    program = tmp_path / "bin" / "unsquashfs"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nwhile [ "$1" != -d ]; do shift; done\necho "{}" >"$2/config.json"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    found = unpack(image, environ)
    assert found is not None
    assert os.listdir(found.folder) == ["config.json"]


def test_an_image_by_the_real_mksquashfs_keeps_the_models_name(
    tmp_path: Path, environ: dict[str, str], pack: Path
) -> None:
    if not shutil.which("mksquashfs") or not shutil.which("unsquashfs"):
        pytest.skip("no squashfs-tools here (Debian's package of that name)")
    untar(pack, tmp_path / "plain")
    (repository,) = (tmp_path / "plain").glob("*/models--*")
    image, how = tmp_path / "tiny.squashfs", ("-keep-as-directory", "-noI", "-noD", "-noF", "-noX", "-quiet")
    subprocess.run(["mksquashfs", repository, image, *how], check=True, capture_output=True)
    found = unpack(image, environ)
    assert found is not None
    assert found.name == repository.name.removeprefix("models--").replace("--", "/")
    assert (found.folder / "config.json").is_file()


def test_the_launcher_serves_the_folder_under_the_models_own_name(
    pack: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(serve, "_become", lambda argv, *_: commands.append(list(argv)) or 0)
    settings = {**environ, "LLM_DEVICE": "cpu", "LLM_VLLM_MODEL_NAME": str(pack), "HOME": str(tmp_path)}
    assert serve.launch(["--dry-run"], settings) == 0
    assert not (tmp_path / "home" / "berth-unpacked").exists()
    assert serve.launch([], settings) == 0
    serving = commands[-1]
    assert serving[serving.index("serve") + 1].endswith(f"/snapshots/{COMMIT}")
    assert serving[serving.index("--served-model-name") + 1] == "org/name"


def test_what_a_storage_initializer_unpacked_is_the_hub_s_cache(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """KServe unpacks an artifact by itself, with the folder that its tar begins with."""
    mounted = tmp_path / "models"
    untar(pack, mounted)
    settings = {
        "LLM_DEVICE": "cpu",
        "LLM_VLLM_MODEL_NAME": "org/name",
        "HF_HUB_CACHE": str(mounted),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path),
        "VLLM_CACHE_ROOT": str(tmp_path / "compiled"),
        "LLM_VLLM_FORCE": "true",
    }
    assert serve.launch(["--dry-run"], settings) == 0
    said = capsys.readouterr()
    assert f"HF_HUB_CACHE={mounted / 'org--name'} " in said.out
    assert "serve org/name " in said.out


def test_of_two_caches_below_none_is_guessed(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "models--org--name").mkdir(parents=True)
    environ = {"HF_HUB_CACHE": str(tmp_path)}
    assert cache_below("org/name", environ) is None
    (tmp_path / "b" / "models--org--name").rmdir()
    assert cache_below("org/name", environ) == tmp_path / "a"
    (tmp_path / "models--org--name").mkdir()
    assert cache_below("org/name", environ) is None
