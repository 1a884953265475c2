"""The way back: a model that `berth fetch --to s3://…` sent, brought from the object store into the hub's cache."""

from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from berth.errors import BerthError, Exit, failed
from berth.models import s3, sums, version
from berth.models.hub import ATTEMPTS, LONGEST_PAUSE_S, Listing, checked
from berth.models.hubcache import HubFile
from berth.models.tarball import ENDINGS
from berth.models.transfer import Transfer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from berth.models.checked import Checked

_BLOCK = 1 << 20
_HINT = "send it there with: scripts/berth fetch MODEL --to s3://BUCKET, which names the place at its end"


@dataclass(frozen=True)
class Store:
    """A folder of an object store with SHA256SUMS and version.txt in it."""

    place: s3.Place
    transfer: Transfer
    client: "S3Client"

    def listing(self) -> Listing:
        """The model there: its name, commit and files, each named by its SHA-256. Raises BerthError."""
        with s3.explained(self.place):
            sizes = self._sizes()
            if sums.FILE not in sizes or version.FILE not in sizes:
                raise failed(f"{self.place} holds no whole model: {sums.FILE} is not there", _HINT, Exit.BAD_SETTING)
            known = sums.read(self._read(sums.FILE).decode(errors="replace"))
            text = self._read(version.FILE)
        said = version.read(text.decode(errors="replace"))
        if said is None or known.pop(version.FILE, "") != sha256(text).hexdigest():
            raise failed(f"{self.place}: {version.FILE} is not what it was", _HINT)
        for path in known:
            if path not in sizes:
                raise failed(f"{self.place} is not whole: {path} is missing", "send it once more")
            if path.endswith(ENDINGS):
                raise self._packed(path)
        files = [checked(HubFile(path, digest, sizes[path])) for path, digest in sorted(known.items())]
        return Listing(said.model, said.revision, said.commit, tuple(files))

    def download(self, listing: Listing, file: HubFile, out: "Checked") -> None:
        """Append what of a file is still to come; a line that is cut goes on. Raises BerthError."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        failures = 0
        while out.size < file.size:
            before = out.size
            try:
                with s3.explained(self.place):
                    self._rest(file, out)
            except BerthError as error:
                failures = 1 if out.size > before else failures + 1
                if failures >= ATTEMPTS or not isinstance(error.__cause__, (HTTPClientError, IncompleteReadError)):
                    raise
                seconds = min(LONGEST_PAUSE_S, 2.0 ** (failures - 1))
                self.transfer.progress.say(f"{error.__cause__}; trying again in {seconds:.0f} s")
                self.transfer.pause(seconds)

    def _rest(self, file: HubFile, out: "Checked") -> None:
        where = self.place.inside(file.path)
        answer = self.client.get_object(Bucket=where.bucket, Key=where.prefix, Range=f"bytes={out.size}-")
        with closing(answer["Body"]) as body:
            for piece in body.iter_chunks(_BLOCK):
                out.write(piece)

    def _sizes(self) -> dict[str, int]:
        """Bytes of each object of the folder."""
        folder = self.place.inside("").prefix
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.place.bucket, Prefix=folder)
        return {
            each["Key"].removeprefix(folder): each["Size"]
            for page in pages
            for each in page.get("Contents", [])
            if "Key" in each and "Size" in each
        }

    def _read(self, name: str) -> bytes:
        where = self.place.inside(name)
        return self.client.get_object(Bucket=where.bucket, Key=where.prefix)["Body"].read()

    def _packed(self, path: str) -> BerthError:
        hint = f"serve it from there, LLM_VLLM_MODEL_NAME={self.place.inside(path)}; or send it without --tar"
        return failed(f"{self.place} holds a packed model, {path}", hint, Exit.BAD_SETTING)


def at(url: str, transfer: Transfer, workers: int) -> Store:
    """The store of a url. Raises BerthError (exit code 2) for what is none."""
    return Store(s3.Place.of(url.removesuffix(f"/{sums.FILE}")), transfer, s3.client(workers))
