"""What is here: checked, listed, packed, cleared away."""

import fcntl
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.errors import BerthError
from berth.models import choosing, inventory, sums, tarball, verify, version
from berth.models.hubcache import Repository
from berth.models.transfer import Transfer
from berth.progress import Progress
from engine import packed
from tests.support.packs import untar
from tests.support.stub_hub import StubHub
from tests.support.stub_models import Model
from tests.unit.models.conftest import MODEL, Fetch

SHARD = "model-00002-of-00002.safetensors"
LONG_AGO = time.time() - 30 * 86400


@pytest.fixture
def transfer() -> Transfer:
    return Transfer(Progress())


def test_a_whole_model_is_all_right(fetching: Fetch, cache: Path, transfer: Transfer) -> None:
    fetched = fetching()
    verdict = verify.run(MODEL, "main", cache, transfer)
    assert verdict.wrong == ()
    assert verdict.bytes == fetched.bytes


def test_a_changed_byte_a_lost_file_and_an_unfinished_download_are_found(
    fetching: Fetch, cache: Path, transfer: Transfer
) -> None:
    fetched = fetching()
    blob = (fetched.path / SHARD).resolve()
    data = bytearray(blob.read_bytes())
    data[1234] ^= 1
    blob.write_bytes(data)
    (fetched.path / "tokenizer.json").resolve().unlink()
    (fetched.path / "model-00001-of-00002.safetensors").unlink()
    (blob.parent / "0123.incomplete").touch()
    wrong = verify.run(MODEL, "main", cache, transfer).wrong
    assert any(line.startswith(f"{SHARD}: the checksum is wrong") and str(blob) in line for line in wrong)
    assert "tokenizer.json: its contents are missing" in wrong
    assert "model-00001-of-00002.safetensors: the index names it, and it is not here" in wrong
    assert any("has not ended" in line for line in wrong)
    assert len(wrong) == 4


def test_what_verify_says_to_do_mends_it(fetching: Fetch, cache: Path, transfer: Transfer) -> None:
    blob = (fetching().path / SHARD).resolve()
    blob.write_bytes(b"\0" * blob.stat().st_size)
    blob.unlink()
    fetching()
    assert verify.run(MODEL, "main", cache, transfer).wrong == ()


def test_a_model_that_is_not_here_is_said_so(cache: Path, transfer: Transfer) -> None:
    with pytest.raises(BerthError, match="is not in"):
        verify.run("some/model", "main", cache, transfer)
    with pytest.raises(BerthError, match="not a model's name"):
        verify.run("../../etc", "main", cache, transfer)


def test_models_are_listed_with_revision_size_and_use(fetching: Fetch, cache: Path) -> None:
    fetched = fetching()
    (found,) = inventory.models(cache)
    assert (found.name, found.commit, found.refs) == (MODEL, fetched.commit, ("main",))
    assert (found.bytes, found.files) == (fetched.bytes, len(fetched.files))
    assert abs(found.used - time.time()) < 600
    assert inventory.models(cache / "nowhere") == []


def test_the_tar_is_a_cache_again_and_the_same_bytes_each_time(
    fetching: Fetch, tmp_path: Path, transfer: Transfer
) -> None:
    fetched = fetching()
    path = tarball.pack(fetched, tarball.place(str(tmp_path / "tests--tiny-llama")), transfer)
    assert path.name == "tests--tiny-llama.tar"
    first = path.read_bytes()
    assert tarball.pack(fetched, path, transfer).read_bytes() == first
    untar(path, tmp_path / "out")
    top = tmp_path / "out" / "tests--tiny-llama"
    assert sorted(each.name for each in top.iterdir()) == ["models--tests--tiny-llama", "version.txt"]
    again = Repository(top, MODEL)
    assert again.commit("main") == fetched.commit
    assert (again.snapshot(fetched.commit) / SHARD).read_bytes() == (fetched.path / SHARD).read_bytes()
    said = version.read((top / "version.txt").read_text())
    assert said == version.Version(MODEL, fetched.commit, "main")
    assert verify.run(str(path), "main", tmp_path, transfer).wrong == ()


def test_a_tar_with_a_wrong_byte_or_cut_short_is_found(fetching: Fetch, tmp_path: Path, transfer: Transfer) -> None:
    path = tarball.pack(fetching(), tmp_path / "model.tar", transfer)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert any("checksum is wrong" in line for line in verify.run(str(path), "main", tmp_path, transfer).wrong)
    path.write_bytes(data[: len(data) // 2])
    assert verify.run(str(path), "main", tmp_path, transfer).wrong


def test_gc_takes_what_was_given_up_or_replaced_and_leaves_the_rest(
    fetching: Fetch, hub: StubHub, source: Path, cache: Path
) -> None:
    old = fetching()
    (source / "config.json").write_text(json.dumps({"model_type": "llama", "newer": True}))
    hub.models[MODEL] = Model(source)
    new = fetching()
    blobs = old.repository.blobs
    (blobs / ("a" * 64 + ".incomplete")).write_bytes(b"x" * 1000)
    (blobs / ("b" * 64)).write_bytes(b"x" * 2000)
    assert inventory.sweep(cache).found == ()  # all of it is of today
    for place in blobs.iterdir():
        os.utime(place, (LONG_AGO, LONG_AGO))
    os.utime(old.path, (LONG_AGO, LONG_AGO))
    listed = inventory.sweep(cache)
    assert {each.kind for each in listed.found} == {"download", "blob", "revision"}
    assert old.path.is_dir()
    inventory.sweep(cache, delete=True)
    assert not old.path.exists()
    assert {file.path for file in new.repository.files(new.commit)} == {file.path for file in new.files}
    assert not new.repository.missing(new.commit, new.files)
    assert inventory.sweep(cache).found == ()


def test_gc_leaves_alone_what_somebody_is_fetching(fetching: Fetch, cache: Path) -> None:
    from berth.models.fetch import writing

    repository = fetching().repository
    partial = repository.blobs / ("a" * 64 + ".incomplete")
    partial.touch()
    os.utime(partial, (LONG_AGO, LONG_AGO))
    with writing(repository, Progress()):
        assert inventory.sweep(cache, delete=True).found == ()
    assert [each.kind for each in inventory.sweep(cache).found] == ["download"]


def test_gc_takes_what_was_unpacked_for_a_start_and_not_read_since(
    fetching: Fetch, cache: Path, tmp_path: Path, transfer: Transfer
) -> None:
    tar = tarball.pack(fetching(), tmp_path / "tiny.tar", transfer)

    def start() -> Path:
        ready = packed.unpack(str(tar), {"HF_HOME": str(cache.parent)}, lambda _: None)
        assert ready
        return ready.folder

    served, home = start(), cache.parent / packed.HOME
    (cut_off := home / ".tiny-0123456789.abcdefgh").mkdir()
    (cut_off / "blob").write_bytes(b"x" * 1000)
    assert inventory.sweep(cache).found == ()
    for place in (*home.rglob("*"), cut_off):
        os.utime(place, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    found = inventory.sweep(cache).found
    assert [each.kind for each in found] == ["unpacked", "unpacked"]
    assert sum(each.bytes for each in found) > 900_000
    (lock,) = home.glob(".*.lock")
    with lock.open("w") as held:  # another start is unpacking
        fcntl.flock(held, fcntl.LOCK_EX)
        assert [each.where for each in inventory.sweep(cache, delete=True).found] == [str(cut_off)]
    (served / "config.json").read_text()
    os.utime((served / "config.json").resolve())  # as the read has it where the file system notes reads
    assert inventory.sweep(cache).found == ()
    for place in home.rglob("*"):
        os.utime(place, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    inventory.sweep(cache, delete=True)
    assert not served.exists()
    assert start() == served


def test_without_safetensors_the_next_best_format_comes() -> None:
    assert choosing.wanted(["a.bin", "a.pt", "a.h5", "config.json"]) == ["a.bin", "config.json"]
    assert choosing.wanted(["q4.gguf", "q8.gguf", "README.md"]) == ["README.md", "q4.gguf", "q8.gguf"]
    assert choosing.wanted(["m.safetensors", "original/m.safetensors"]) == ["m.safetensors"]
    assert choosing.wanted(["q4.gguf", "q8.gguf"], include=["q4*"]) == ["q4.gguf"]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_for_checksums_and_version_is_read_without_harm(text: str) -> None:
    for path in sums.read(text):
        assert ".." not in Path(path).parts
        assert not Path(path).is_absolute()
    said = version.read(text)
    assert said is None or version.read(said.text()) == said


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z0-9./_-]{1,30}", fullmatch=True), st.just("0" * 64), max_size=5))
def test_checksums_are_read_as_they_are_written(known: dict[str, str]) -> None:
    plain = {
        path: value
        for path, value in known.items()
        if not path.startswith("/") and ".." not in path.split("/") and Path(path) != Path()
    }
    assert sums.read(sums.text(plain.items())) == plain
