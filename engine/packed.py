"""A model that comes packed, made a folder: a tar file, a squashfs image, an object of a store that is either.

A tar is as `berth fetch --tar` writes it, or any with one model in it. What is unpacked stays beside the hub's cache,
under a name that the packed file's size and time are part of, so a start unpacks once.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from engine import model, names, untar
from engine.messages import Exit, Problem

HOME = "berth-unpacked"  # beside the hub's cache
_TARS = (".tar", ".tar.gz", ".tgz")
_IMAGES = (".squashfs", ".sqfs")


class BadPack(Exception):
    """It cannot be unpacked."""

    def __init__(self, sentence: str, hint: str, code: Exit = Exit.FAILED) -> None:
        self.problem = Problem(f"{names.MODEL}: {sentence}", hint, code)
        super().__init__(sentence)


@dataclass(frozen=True)
class Unpacked:
    """The folder to serve, and the model's name on the hub where the pack says it."""

    folder: Path
    name: str | None


def _is_plain(folder: Path) -> bool:
    return any((folder / file).exists() for file in ("config.json", "params.json")) or any(folder.glob("*.gguf"))


def is_packed(name: str) -> bool:
    """Whether a model's name is that of a file, here or in a store, that is to be unpacked."""
    return name.endswith((*_TARS, *_IMAGES)) and (name.startswith("s3://") or os.path.isfile(os.path.expanduser(name)))


def unpack(name: str, environ: Mapping[str, str], say: Callable[[str], None]) -> Unpacked | None:
    """The folder to serve instead; None where there is nothing to unpack. Raises BadPack."""
    if os.path.isdir(name):
        return None if _is_plain(Path(name)) else inside(Path(name))
    if not is_packed(name):
        return None
    home = model.hub_cache(environ).parent / HOME
    try:
        home.mkdir(parents=True, exist_ok=True)
        pack = Path(_from_store(name, home, say) if name.startswith("s3://") else os.path.expanduser(name))
        stat = pack.stat()
        key = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:10]
        folder = home / f"{pack.name.partition('.')[0]}-{key}"
        with (home / f".{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several engines of one machine start together
            if not folder.exists():
                say(f"unpacking {pack} to {folder}")
                _extract(pack, folder)
    except OSError as error:
        hint = "make room, or set HF_HOME to a folder on a larger disk that this user may write to"
        raise BadPack(f"cannot unpack {name}: {error.strerror or error}", hint) from error
    found = inside(folder)
    if found is None:
        shutil.rmtree(folder, ignore_errors=True)
        raise BadPack(f"{name} holds no model", "pack it with: scripts/berth fetch MODEL --tar NAME", Exit.BAD_SETTING)
    return found


def _extract(pack: Path, folder: Path) -> None:
    """Unpack beside the folder, and then give it its name: half of a model is never served."""
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        if pack.name.endswith(_IMAGES):
            _unsquash(pack, work)
        else:
            untar.extract(pack, work)
        work.chmod(0o755)
        work.rename(folder)
    except (tarfile.TarError, EOFError) as error:
        raise BadPack(f"{pack} is no whole tar file: {error}", f"check it with: scripts/berth verify {pack}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _unsquash(pack: Path, work: Path) -> None:
    program = shutil.which("unsquashfs")
    if program is None:
        raise BadPack(
            f"{pack} is a squashfs image, and unsquashfs is not here",
            "mount it and name the folder: squashfuse IMAGE FOLDER; a Slurm job mounts it by itself",
            Exit.MISSING_PREREQUISITE,
        )
    done = subprocess.run([program, "-q", "-n", "-f", "-d", str(work), str(pack)], capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise BadPack(f"{pack} cannot be unpacked: {said[-1] if said else done.returncode}", "make the image again")


def _from_store(url: str, home: Path, say: Callable[[str], None]) -> Path:
    """Bring a packed model from an object store; boto3 is what vLLM's own streamer brings along."""
    if find_spec("boto3") is None:
        hint = "fetch it to a folder of this machine first; or install runai-model-streamer[s3] beside vLLM"
        raise BadPack(f"{url} needs boto3, which is not here", hint, Exit.MISSING_PREREQUISITE)
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = url.removeprefix("s3://").partition("/")
    try:
        s3 = boto3.client("s3")
        etag = s3.head_object(Bucket=bucket, Key=key)["ETag"].strip('"')
        target = home / f"{etag}-{key.rpartition('/')[2]}"
        if not target.exists():
            say(f"fetching {url}")
            work = target.with_name(f".{target.name}.{os.getpid()}")
            s3.download_file(bucket, key, str(work))
            work.rename(target)
    except (BotoCoreError, ClientError) as error:
        hint = "check the address, AWS_ENDPOINT_URL, and AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY"
        raise BadPack(f"{url}: {error}", hint, Exit.MISSING_PREREQUISITE) from error
    return target


def inside(folder: Path) -> Unpacked | None:
    """The model in a folder: its own files, a snapshot of the hub's cache, or either one level below."""
    for place in (folder, *sorted(each for each in _children(folder) if each.is_dir())):
        if (place / "config.json").is_file():
            return Unpacked(place, None)
        for repository in (place, *sorted(place.glob("models--*"))):
            if (snapshot := _snapshot(repository)) is not None:
                name = repository.name.removeprefix("models--").replace("--", "/")
                return Unpacked(snapshot, name if repository.name.startswith("models--") else None)
    return None


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _snapshot(repository: Path) -> Path | None:
    """What main means in a model's folder of the cache; else its only commit."""
    snapshots = [each for each in _children(repository / "snapshots") if (each / "config.json").is_file()]
    try:
        commit = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = ""
    for snapshot in snapshots:
        if snapshot.name == commit or len(snapshots) == 1:
            return snapshot
    return None
