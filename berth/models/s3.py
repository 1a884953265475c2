"""A model in an object store: `s3://bucket[/prefix]/models/<family>/<revision[:7]>/`, sent in parts that are kept.

What was sent before a run was cut off is not sent again, down to the part. SHA256SUMS goes last: where it is, the
model is whole. Credentials, region and endpoint are boto3's (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL, …).
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from berth.errors import Exit, failed
from berth.models import sums, version
from berth.models.fetch import Fetched
from berth.models.multipart import Upload
from berth.models.transfer import Transfer
from berth.models.version import Version

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class Place:
    """A bucket and a folder in it."""

    bucket: str
    prefix: str

    @staticmethod
    def of(url: str) -> "Place":
        """Read s3://bucket/prefix. Raises BerthError (exit code 2)."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not url.startswith("s3://") or not _BUCKET.fullmatch(bucket):
            raise failed(f"{url}: not a place in an object store", "write it as s3://bucket/folder", Exit.BAD_SETTING)
        return Place(bucket, "/".join(part for part in prefix.split("/") if part))

    def inside(self, path: str) -> "Place":
        """A folder or object below this one."""
        return Place(self.bucket, f"{self.prefix}/{path}" if self.prefix else path)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def family(fetched: Fetched) -> str:
    """The model's family: `model_type` of its config.json, else the letters that its name begins with."""
    try:
        said = json.loads((fetched.path / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        said = None
    if isinstance(said, str) and re.fullmatch(r"[A-Za-z0-9_.-]+", said):
        return said.lower()
    name = fetched.repository.model.rpartition("/")[2].lower()
    return (re.match(r"[a-z]+", name) or re.match(r".*", name))[0]  # type: ignore[index]


def client(workers: int) -> "S3Client":
    """boto3's client; a failed call is made again by it, with growing pauses."""
    import boto3
    from botocore.config import Config

    config = Config(retries={"mode": "standard", "total_max_attempts": 6}, max_pool_connections=workers + 2)
    return boto3.client("s3", config=config)


def send(fetched: Fetched, tar: Path | None, place: Place, transfer: Transfer, workers: int) -> str:
    """Send the model's files, or its tar. Returns what LLM_VLLM_MODEL_NAME is to say. Raises BerthError."""
    folder = place.inside(f"models/{family(fetched)}/{fetched.commit[:7]}")
    said = Version(fetched.repository.model, fetched.commit, fetched.revision).text()
    files = {tar.name: tar} if tar else {file.path: fetched.path / file.path for file in fetched.files}
    with explained(place):
        s3 = client(workers)
        known = _checksums(fetched, files, transfer, workers)
        uploads = [Upload(s3, folder.inside(path), file, known[path]) for path, file in files.items()]
        total = sum(upload.size for upload in uploads)
        jobs: list[Callable[[], None]] = []
        had = 0
        for upload in uploads:
            jobs += [partial(upload.send_part, number, transfer.count) for number in upload.missing()]
            had += upload.had
        transfer.run(f"sending to {folder}", jobs, total, had, workers)
        for upload in uploads:
            upload.complete()
        s3.put_object(Bucket=place.bucket, Key=folder.inside(version.FILE).prefix, Body=said.encode())
        lines = sums.text([*known.items(), (version.FILE, _sha256(said))])
        s3.put_object(Bucket=place.bucket, Key=folder.inside(sums.FILE).prefix, Body=lines.encode())
    return str(folder.inside(tar.name) if tar else folder)


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def _checksums(fetched: Fetched, files: dict[str, Path], transfer: Transfer, workers: int) -> dict[str, str]:
    """SHA-256 of each file; most blobs are named by theirs."""
    known = {file.path: file.blob for file in fetched.files if len(file.blob) == 64 and file.path in files}
    rest = [path for path in files if path not in known]

    def work_out(path: str) -> None:
        known[path] = sums.sha256(files[path], transfer)

    jobs = [partial(work_out, path) for path in rest]
    transfer.run("checking", jobs, sum(files[path].stat().st_size for path in rest), workers=workers)
    return known


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """What an object store says, as one sentence and a hint."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        hint = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the shell"
        raise failed(f"no credentials for s3://{place.bucket}", hint, Exit.MISSING_PREREQUISITE) from error
    except ClientError as error:
        said = error.response.get("Error", {})
        hint = "check bucket, rights and AWS_ENDPOINT_URL, and run the same command again; it goes on where it stopped"
        raise failed(f"s3://{place.bucket}: {said.get('Code')}: {said.get('Message')}", hint) from error
    except (BotoCoreError, Boto3Error, ValueError) as error:
        hint = "check AWS_ENDPOINT_URL and the network, and run the same command again; it goes on where it stopped"
        raise failed(f"s3://{place.bucket}: {error}", hint, Exit.MISSING_PREREQUISITE) from error
