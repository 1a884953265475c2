"""Whatever a tar file holds, nothing of it lands outside of the folder, with Python's own filter and without one."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import untar

Member = tuple[str, bytes, str]  # a name, a type, and the text of a file or where a link leads
SECRET = b"not to be changed"


@pytest.fixture(params=["with filters", "without filters"], autouse=True)
def python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12's Python has none."""
    if request.param == "without filters":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    elif not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python's tarfile has no filters")


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Path]:
    """A folder with another one beside it; what is there must be there afterwards, and nothing else."""
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(SECRET)
    yield tmp_path
    assert sorted(os.listdir(tmp_path)) == ["evil.tar", "in", "secret"]
    assert (tmp_path / "secret").read_bytes() == SECRET
    assert (tmp_path / "secret").stat().st_nlink == 1


def packed(place: Path, *members: Member) -> Path:
    """Each a name, a type and the data of a file, or where a link leads."""
    with tarfile.open(place / "evil.tar", "w") as tar:
        for name, kind, what in members:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            data = b""
            if kind == tarfile.REGTYPE:
                data = what.encode()
            else:
                entry.linkname = what
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return place / "evil.tar"


FILE, LINK, HARD, FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("../escaped", FILE, "x")],
        [("a/../../escaped", FILE, "x")],
        [("link", LINK, "../secret")],
        [("link", LINK, "/etc/passwd")],
        [("out", LINK, ".."), ("out/escaped", FILE, "x")],
        [("a", FOLDER, ""), ("a/out", LINK, "../.."), ("a/out/secret", FILE, "x")],
        [("hard", HARD, "../secret")],
        [("hard", HARD, "../secret"), ("hard", FILE, "x")],
        [("device", tarfile.CHRTYPE, "")],
        [("pipe", tarfile.FIFOTYPE, "")],
    ],
)
def test_what_leads_out_or_is_no_file_is_refused(around: Path, members: list[Member]) -> None:
    with pytest.raises(tarfile.TarError):
        untar.extract(packed(around, *members), around / "in")


def test_an_absolute_name_is_refused_or_stays_inside(around: Path) -> None:
    try:
        untar.extract(packed(around, (f"{around}/escaped", FILE, "x")), around / "in")
    except tarfile.TarError:
        assert os.listdir(around / "in") == []


def test_files_folders_and_links_that_stay_inside_arrive(around: Path) -> None:
    members: list[Member] = [
        ("top/blobs/abc", FILE, "weights"),
        ("top/snapshots/1/config.json", LINK, "../../blobs/abc"),
        ("top/hard", HARD, "top/blobs/abc"),
        ("top/empty", FOLDER, ""),
    ]
    untar.extract(packed(around, *members), around / "in")
    top = around / "in" / "top"
    assert (top / "snapshots/1/config.json").read_text() == (top / "hard").read_text() == "weights"
    assert os.readlink(top / "snapshots/1/config.json") == "../../blobs/abc"
    assert (top / "empty").is_dir()


def test_half_a_file_is_refused(around: Path) -> None:
    path = packed(around, ("big", FILE, "x" * 4000))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises((tarfile.TarError, EOFError)):
        untar.extract(path, around / "in")
