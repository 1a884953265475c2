"""Sending a model to an object store, against moto's S3 server, with parts that fail and runs that are cut off."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from berth.errors import BerthError
from berth.models import fetch, multipart, s3, sums, tarball, verify
from berth.models import store as stores
from berth.models.fetch import Fetched
from berth.models.transfer import Transfer
from berth.progress import Progress
from tests.unit.models.conftest import Fetch

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART = 5 << 20  # S3's least, and moto holds to it
BUCKET = "models-of-a-site"
WEIGHTS = 6_000_000  # the larger shard is three parts


@dataclass
class Store:
    """A server, and which requests fail: those of which `breaks` says so are answered with 500."""

    address: str
    breaks: Callable[[str, str, str], bool]
    puts: list[str]


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    """moto's S3, with a gate in front that can fail."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    inner = DomainDispatcherApplication(create_backend_app)
    store = Store("", lambda *_: False, [])

    def gate(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        words = (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
        if store.breaks(*words):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        if words[0] == "PUT":
            store.puts.append(f"{words[1]}?{words[2]}")
        return inner(environ, start)  # type: ignore[no-any-return]

    running = make_server("127.0.0.1", 0, gate, threaded=True)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    store.address = f"http://127.0.0.1:{running.port}"
    yield store
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def store(server: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty bucket, and the shell of somebody who may write to it."""
    for name, value in {
        "AWS_ENDPOINT_URL": server.address,
        "AWS_ACCESS_KEY_ID": "an-id",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(multipart, "PART", PART)
    server.breaks = lambda *_: False
    bucket = s3.client(1)
    bucket.create_bucket(Bucket=BUCKET)
    for page in bucket.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for each in page.get("Contents", []):
            bucket.delete_object(Bucket=BUCKET, Key=each["Key"])
    server.puts.clear()
    return server


@pytest.fixture
def fetched(fetching: Fetch, source: Path) -> Fetched:
    return fetching()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    from tests.unit.models.conftest import make_model

    return make_model(tmp_path / "source", WEIGHTS)


def send(fetched: Fetched, tar: Path | None = None, place: str = f"s3://{BUCKET}") -> str:
    return s3.send(fetched, tar, s3.Place.of(place), Transfer(Progress()), 4)


def body(bucket: "S3Client", key: str) -> bytes:
    return bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def test_the_files_lie_under_family_and_revision_with_their_checksums_last(fetched: Fetched, store: Store) -> None:
    url = send(fetched)
    prefix = f"models/llama/{fetched.commit[:7]}"
    assert url == f"s3://{BUCKET}/{prefix}"
    bucket = s3.client(1)
    known = sums.read(body(bucket, f"{prefix}/SHA256SUMS").decode())
    assert set(known) == {*(file.path for file in fetched.files), "version.txt"}
    for file in fetched.files:
        assert body(bucket, f"{prefix}/{file.path}") == (fetched.path / file.path).read_bytes()
    assert store.puts[-1].startswith(f"/{BUCKET}/{prefix}/SHA256SUMS")


def test_a_second_time_no_file_is_sent_again(fetched: Fetched, store: Store) -> None:
    send(fetched)
    store.puts.clear()
    send(fetched)
    assert {put.rpartition("/")[2].partition("?")[0] for put in store.puts} == {"version.txt", "SHA256SUMS"}


def test_a_part_that_fails_is_sent_again(fetched: Fetched, store: Store) -> None:
    failures = iter([True, True])
    store.breaks = lambda method, path, query: method == "PUT" and "partNumber=2" in query and next(failures, False)
    send(fetched)
    key = f"models/llama/{fetched.commit[:7]}/model-00002-of-00002.safetensors"
    assert body(s3.client(1), key) == (fetched.path / "model-00002-of-00002.safetensors").read_bytes()
    assert next(failures, None) is None


def test_a_run_that_was_cut_off_goes_on_with_the_parts_that_are_missing(
    fetched: Fetched, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    large = "model-00002-of-00002.safetensors"
    store.breaks = lambda method, path, query: method == "PUT" and large in path and "partNumber=3" in query
    with pytest.raises(BerthError, match="500") as caught:
        s3.send(fetched, None, s3.Place.of(f"s3://{BUCKET}"), Transfer(Progress()), 1)
    assert "goes on where it stopped" in caught.value.problems[0].hint
    store.breaks = lambda *_: False
    store.puts.clear()
    send(fetched)
    parts = [put for put in store.puts if large in put]
    assert len(parts) == 1
    assert "partNumber=3" in parts[0]
    key = f"models/llama/{fetched.commit[:7]}/{large}"
    assert body(s3.client(1), key) == (fetched.path / large).read_bytes()


def test_the_tar_goes_under_family_and_revision_too(fetched: Fetched, store: Store, tmp_path: Path) -> None:
    tar = tarball.pack(fetched, tmp_path / "tests--tiny-llama.tar", Transfer(Progress()))
    url = send(fetched, tar, f"s3://{BUCKET}/team")
    assert url == f"s3://{BUCKET}/team/models/llama/{fetched.commit[:7]}/tests--tiny-llama.tar"
    assert body(s3.client(1), url.removeprefix(f"s3://{BUCKET}/")) == tar.read_bytes()


def test_a_bucket_that_is_not_there_and_a_url_that_is_none_are_said_so(fetched: Fetched, store: Store) -> None:
    with pytest.raises(BerthError, match="NoSuchBucket"):
        send(fetched, place="s3://no-such-bucket")
    for url in ("s3://", "s3://UPPER/x", "https://bucket"):
        with pytest.raises(BerthError, match="not a place"):
            s3.Place.of(url)


def back(url: str, cache: Path) -> Fetched:
    there = stores.at(url, Transfer(Progress()), 4)
    return fetch.run(there, fetch.choose(there.listing(), cache))


def test_what_was_sent_comes_back_and_is_the_same_model(fetched: Fetched, store: Store, tmp_path: Path) -> None:
    again = back(send(fetched), tmp_path / "elsewhere")
    assert (again.repository.model, again.commit) == (fetched.repository.model, fetched.commit)
    assert {file.path for file in again.files} == {file.path for file in fetched.files}
    for file in fetched.files:
        assert (again.path / file.path).read_bytes() == (fetched.path / file.path).read_bytes()
    verdict = verify.run(fetched.repository.model, "main", tmp_path / "elsewhere", Transfer(Progress()))
    assert verdict.wrong == ()


def test_coming_back_goes_on_after_a_cut_and_takes_no_wrong_byte(
    fetched: Fetched, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, large = send(fetched), "model-00002-of-00002.safetensors"
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    store.breaks = lambda method, path, query: method == "GET" and large in path
    with pytest.raises(BerthError, match="500"):
        back(url, tmp_path / "elsewhere")
    blobs = tmp_path / "elsewhere" / fetched.repository.folder.name / "blobs"
    content = (fetched.path / large).read_bytes()
    (blobs / f"{hashlib.sha256(content).hexdigest()}.incomplete").write_bytes(content[:WEIGHTS])
    store.breaks = lambda *_: False
    size = sum(path.stat().st_size for path in fetched.path.iterdir())
    there = sum(blob.stat().st_size for blob in blobs.iterdir())  # of the other files, as many as came before the cut
    again = back(url, tmp_path / "elsewhere")
    assert again.moved == size - there
    assert (again.path / large).read_bytes() == (fetched.path / large).read_bytes()
    wrong = s3.Place.of(url).inside("tokenizer.json")
    s3.client(1).put_object(Bucket=BUCKET, Key=wrong.prefix, Body=b'{"version": "6.6"}')
    with pytest.raises(BerthError, match="wrong checksum"):
        back(url, tmp_path / "third")
    assert not list((tmp_path / "third").glob("*/snapshots/*"))


def test_a_folder_that_holds_no_whole_model_and_one_that_is_packed_are_said_so(
    fetched: Fetched, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(BerthError, match="SHA256SUMS is not there"):
        back(f"s3://{BUCKET}/models/none", tmp_path)
    tar = tarball.pack(fetched, tmp_path / "tests--tiny-llama.tar", Transfer(Progress()))
    url = send(fetched, tar)
    with pytest.raises(BerthError, match="holds a packed model") as caught:
        back(url.rpartition("/")[0], tmp_path)
    assert url in caught.value.problems[0].hint
