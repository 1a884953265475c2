"""One object sent in parts. The store keeps the parts of an upload that was cut off; the next run sends the others."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1 << 20
PART = 16 * MIB  # held in memory by each worker; S3 wants 5 MiB at least
_PARTS = 10_000  # S3's most


class Target(Protocol):
    """Where an object goes."""

    @property
    def bucket(self) -> str:
        """The bucket's name."""

    @property
    def prefix(self) -> str:
        """The object's key."""


class Upload:
    """A file on its way to one key. `had` is the bytes that the store has already, known after `missing`."""

    def __init__(self, s3: "S3Client", target: Target, file: Path, sha256: str) -> None:
        self._s3, self._bucket, self._key = s3, target.bucket, target.prefix
        self._file, self._sha256 = file, sha256
        self.size = file.stat().st_size
        self._part = max(PART, -(-self.size // _PARTS // MIB) * MIB)
        self._id: str | None = None
        self._etags: dict[int, str] = {}
        self.had = 0

    @property
    def _count(self) -> int:
        return max(1, -(-self.size // self._part))

    def missing(self) -> list[int]:
        """The numbers of the parts to send: none for an object that is there whole. Begins an upload, or goes on."""
        if self._is_there():
            self.had = self.size
            return []
        if self._count == 1:
            return [1]
        self._id, self._etags = self._unfinished()
        self.had = sum(len(self._read(number)) for number in self._etags)
        if self._id is None:
            begun = self._s3.create_multipart_upload(
                Bucket=self._bucket, Key=self._key, Metadata={"sha256": self._sha256}
            )
            self._id = begun["UploadId"]
        return [number for number in range(1, self._count + 1) if number not in self._etags]

    def send_part(self, number: int, moved: Callable[[int], None]) -> None:
        """Send one part; a file of one part goes as it is."""
        data = self._read(number)
        moved(0)
        if self._count == 1:
            self._s3.put_object(Bucket=self._bucket, Key=self._key, Body=data, Metadata={"sha256": self._sha256})
        elif self._id is not None:
            sent = self._s3.upload_part(
                Bucket=self._bucket, Key=self._key, UploadId=self._id, PartNumber=number, Body=data
            )
            self._etags[number] = sent["ETag"]
        moved(len(data))

    def complete(self) -> None:
        """Make the parts one object."""
        if self._id is not None:
            self._s3.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=self._id,
                MultipartUpload={
                    "Parts": [{"PartNumber": number, "ETag": etag} for number, etag in sorted(self._etags.items())]
                },
            )

    def _is_there(self) -> bool:
        from botocore.exceptions import ClientError

        try:
            found = self._s3.head_object(Bucket=self._bucket, Key=self._key)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return False
            raise
        return found["ContentLength"] == self.size and found["Metadata"].get("sha256") == self._sha256

    def _unfinished(self) -> tuple[str | None, dict[int, str]]:
        """An upload of this key that was cut off, and those of its parts that are this file's (an ETag is an MD5)."""
        listed = self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=self._key)
        ids = [
            (each["Initiated"], each["UploadId"])
            for page in listed
            for each in page.get("Uploads", [])
            if each.get("Key") == self._key
        ]
        if not ids:
            return None, {}
        newest = max(ids)[1]
        pages = self._s3.get_paginator("list_parts").paginate(Bucket=self._bucket, Key=self._key, UploadId=newest)
        parts = {each["PartNumber"]: each["ETag"] for page in pages for each in page.get("Parts", [])}
        return newest, {
            number: etag
            for number, etag in parts.items()
            if number <= self._count
            and etag.strip('"') == hashlib.md5(self._read(number), usedforsecurity=False).hexdigest()
        }

    def _read(self, number: int) -> bytes:
        descriptor = os.open(self._file, os.O_RDONLY)
        try:
            return os.pread(descriptor, self._part, (number - 1) * self._part)
        finally:
            os.close(descriptor)
