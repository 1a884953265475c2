"""Fetching from the hub: the right files, whole, whatever the line does, and nobody's half."""

import os
import threading
from pathlib import Path

import pytest

from berth.errors import BerthError
from berth.models import hub as hubs
from berth.models.fetch import Fetched
from tests.support.stub_hub import StubHub
from tests.unit.models.conftest import MODEL, Fetch

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def names(fetched: Fetched) -> set[str]:
    return {file.path for file in fetched.files}


def same(fetched: Fetched, source: Path) -> bool:
    """Whether the snapshot is, byte for byte, what the hub has."""
    return all((fetched.path / name).read_bytes() == (source / name).read_bytes() for name in names(fetched))


def test_safetensors_come_and_the_same_weights_in_other_formats_do_not(fetching: Fetch, source: Path) -> None:
    fetched = fetching()
    assert names(fetched) >= {"config.json", "tokenizer.json", "empty.txt", *SHARDS}
    assert not {"pytorch_model.bin", "original/consolidated.00.pth"} & names(fetched)
    assert same(fetched, source)


def test_the_layout_is_the_hubs_own(fetching: Fetch, cache: Path, hub: StubHub) -> None:
    from huggingface_hub import snapshot_download

    fetched = fetching()
    found = snapshot_download(MODEL, cache_dir=cache, local_files_only=True)
    assert Path(found) == fetched.path
    assert fetched.commit == hub.models[MODEL].commit
    assert (cache / "models--tests--tiny-llama/refs/main").read_text() == fetched.commit
    blob = (fetched.path / SHARDS[0]).readlink()
    assert str(blob).startswith("../../blobs/")
    assert not blob.is_absolute()


def test_a_commit_can_be_named_and_a_revision_that_is_none_is_refused(fetching: Fetch, hub: StubHub) -> None:
    commit = hub.models[MODEL].commit
    assert fetching(revision=commit).commit == commit
    with pytest.raises(BerthError, match="no such revision"):
        fetching(revision="v9")


def test_patterns_choose(fetching: Fetch) -> None:
    assert names(fetching(include=["*.json"], exclude=["tokenizer*"])) == {
        "config.json",
        "model.safetensors.index.json",
    }
    with pytest.raises(BerthError, match="no file"):
        fetching(include=["*.gguf"])


def test_what_is_here_is_not_fetched_again(fetching: Fetch, hub: StubHub) -> None:
    fetching()
    before = hub.sent
    again = fetching()
    assert (hub.sent, again.moved) == (before, 0)


def test_a_token_does_not_go_to_another_origin(fetching: Fetch, hub: StubHub) -> None:
    fetching(token="hf_secret")
    asked = {each.path.startswith("/cdn/"): each.authorization for each in hub.asked}
    assert asked[False] == "Bearer hf_secret"
    assert asked[True] == ""


def test_a_gated_model_is_refused_before_its_first_byte(fetching: Fetch, hub: StubHub, cache: Path) -> None:
    hub.knobs.gated, hub.knobs.token = True, "right"
    with pytest.raises(BerthError, match=r"gated.*no token"):
        fetching()
    with pytest.raises(BerthError, match="this token does not open it"):
        fetching(token="wrong")
    assert hub.sent == 0
    assert not cache.exists()
    assert fetching(token="right").moved > 0


def test_a_name_that_the_hub_does_not_know_is_refused(fetching: Fetch) -> None:
    with pytest.raises(BerthError, match=r"tests/other \(HTTP 401\)"):
        fetching(model="tests/other")


def test_a_busy_hub_is_asked_again(fetching: Fetch, hub: StubHub, source: Path) -> None:
    hub.knobs.busy = 4
    assert same(fetching(), source)


def test_a_line_that_is_cut_again_and_again_is_taken_up_where_it_ended(
    fetching: Fetch, hub: StubHub, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "LONGEST_PAUSE_S", 0.0)
    hub.knobs.cut_after = 100_000
    fetched = fetching()
    assert same(fetched, source)
    for name in SHARDS:
        starts = [int(each.range[6:-1]) for each in hub.asked if each.path.startswith("/cdn/") and name in each.path]
        assert starts == sorted(starts)
        assert len(set(starts)) > 2


def test_a_hub_that_stays_away_ends_it_with_a_hint(
    fetching: Fetch, hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "LONGEST_PAUSE_S", 0.0)
    hub.knobs.busy = 1000
    with pytest.raises(BerthError, match="HTTP 429") as caught:
        fetching()
    assert "goes on where it stopped" in caught.value.problems[0].hint


def test_a_wrong_byte_is_found_and_fetched_again(fetching: Fetch, hub: StubHub, source: Path) -> None:
    hub.knobs.wrong_bytes = 1
    assert same(fetching(), source)


def test_bytes_that_stay_wrong_never_get_a_name(fetching: Fetch, hub: StubHub, cache: Path) -> None:
    hub.knobs.wrong_bytes = 1000
    with pytest.raises(BerthError, match="wrong checksum"):
        fetching()
    assert not list(cache.rglob("snapshots/*"))
    wrong = {file.sha256 for file in hub.models[MODEL].files.values() if file.sha256}
    assert not wrong & {blob.name for blob in cache.rglob("blobs/*")}


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(
    fetching: Fetch, hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("berth.models.transfer._KEEP_FREE", 1 << 60)
    with pytest.raises(BerthError, match=r"takes .* more, and .* free"):
        fetching()
    assert hub.sent == 0


def test_two_at_once_fetch_once(fetching: Fetch, hub: StubHub, source: Path) -> None:
    hub.knobs.hold = threading.Event()
    results: list[Fetched] = []
    threads = [threading.Thread(target=lambda: results.append(fetching())) for _ in range(2)]
    for thread in threads:
        thread.start()
    while sum("/tree/" in each.path for each in hub.asked) < 4:  # both know what there is
        threading.Event().wait(0.01)
    hub.knobs.hold.set()
    for thread in threads:
        thread.join()
    assert [same(each, source) for each in results] == [True, True]
    assert hub.sent == sum((source / name).stat().st_size for name in SHARDS)
    assert sorted(each.moved > 0 for each in results) == [False, True]


def test_the_group_may_read_what_came_and_only_its_folder_says_more(
    fetching: Fetch, cache: Path, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        fetched = fetching()
    finally:
        os.umask(before)
    for place in (fetched.path, fetched.path.parent, cache / "models--tests--tiny-llama"):
        assert place.stat().st_mode & 0o077 == 0o050, place
    assert (fetched.path / SHARDS[0]).stat().st_mode & 0o077 == 0o040


def test_the_hub_cannot_name_a_file_outside(fetching: Fetch, hub: StubHub) -> None:
    files = hub.models[MODEL].files
    files["../../../escaped.json"] = files["config.json"]
    with pytest.raises(BerthError, match="cannot be"):
        fetching()
