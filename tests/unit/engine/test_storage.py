"""How weights are read follows the file system that they lie on, and gives way to a setting."""

import os
from pathlib import Path

import pytest

from engine import host, storage
from engine.decisions import Situation
from tests.unit.engine.fitting import SMALL, make_model

MOUNTS = """\
overlay / overlay rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb /home/fast ext4 rw 0 0
pfs /data/with\\040blank gpfs rw 0 0
/dev/sdc /twice ext4 rw 0 0
fs /twice lustre rw 0 0
broken
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    file = tmp_path / "mounts"
    file.write_text(MOUNTS, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/model", "nfs4"),
        ("/home/fast/model", "ext4"),
        ("/homeless", "overlay"),
        ("/data/with blank/model", "gpfs"),
        ("/twice/model", "lustre"),
    ],
)
def test_the_longest_mount_and_the_last_one_there_hold_a_path(mounts: Path, path: str, kind: str) -> None:
    assert storage.file_system(Path(path), mounts) == kind


def test_a_link_counts_as_what_it_points_to(tmp_path: Path, mounts: Path) -> None:
    (tmp_path / "link").symlink_to("/home/me/blob")
    assert storage.file_system(tmp_path / "link", mounts) == "nfs4"
    assert storage.file_system(tmp_path, tmp_path / "no mounts") is None


def said(model: Path, **values: str) -> str:
    given = {name.replace("_", "-"): value for name, value in values.items()}
    return "\n".join(f"{one} {' '.join(one.args)}" for one in storage.decide(Situation({}, given, str(model))))


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.juicefs", "wekafs"])
def test_weights_across_a_network_are_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    model = make_model(tmp_path / "m", SMALL, 1000)
    monkeypatch.setattr(storage, "file_system", lambda path: kind)
    assert "--safetensors-load-strategy prefetch" in said(model)
    assert kind in said(model)
    monkeypatch.setattr(host, "memory_available", lambda: 10)
    assert "--safetensors-load-strategy eager" in said(model)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "overlay", "tmpfs", "squashfs", "fuse.squashfuse_ll"])
def test_weights_on_this_machine_are_left_to_vllm_and_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(storage, "file_system", lambda path: kind)
    line = said(make_model(tmp_path / "m", SMALL, 1000))
    assert kind in line
    assert "--" not in line


@pytest.mark.parametrize("flag", ["safetensors_load_strategy", "load_format", "model_loader_extra_config"])
def test_a_setting_decides_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    monkeypatch.setattr(storage, "file_system", lambda path: "nfs")
    assert not said(make_model(tmp_path / "m", SMALL, 1000), **{flag: "x"})


def test_an_object_store_is_streamed_from_where_the_streamer_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    (nothing,) = [storage.decide(Situation({}, {}, "s3://bucket/models/m/1234567"))]
    assert nothing == []
    monkeypatch.setattr(storage, "find_spec", lambda name: object())
    (decision,) = storage.decide(Situation({}, {}, "s3://bucket/models/m/1234567"))
    assert decision.args == ("--load-format", "runai_streamer")


def test_the_file_system_of_this_very_place_is_found() -> None:
    assert storage.file_system(Path(os.sep))
