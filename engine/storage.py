"""How weights are read, chosen by the file system that they lie on, as /proc/mounts says it."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

from engine import host, model
from engine.decisions import Decision, Situation

# File systems with a network between them and the disk. Of these vLLM 0.32 itself knows NFS and Lustre alone.
_NETWORK = re.compile(
    r"nfs4?|lustre|gpfs|beegfs|ceph|cifs|smb3?|9p|virtiofs|afs|panfs|pvfs2|wekafs|glusterfs"
    r"|fuse\.(?!squashfuse|overlay|fuse-overlayfs|lxcfs).+"
)
_OBJECT_STORES = ("s3://", "gs://", "az://")
_PREFETCH_SHARE = 0.9  # of the free memory, as vLLM has it: what is read ahead must not push itself out again
_FLAGS = ("safetensors-load-strategy", "load-format", "model-loader-extra-config")


def decide(situation: Situation) -> list[Decision]:
    """One line on how the weights are read; nothing where a setting says it, or where they are not here yet."""
    if situation.model is None or any(flag in situation.values for flag in _FLAGS):
        return []
    if situation.model.startswith(_OBJECT_STORES):
        if find_spec("runai_model_streamer") is None:
            return []
        why = "the weights are in an object store: read by many requests at once, straight into memory"
        return [Decision("--load-format runai_streamer", why, args=("--load-format", "runai_streamer"))]
    files = model.find(situation.model, situation.environ, situation.values)
    weights = sorted(files.folder.glob("*.safetensors")) if files else []
    if not weights:
        return []
    kind = file_system(weights[0])
    if kind is None:
        return []
    if not _NETWORK.fullmatch(kind):
        return [
            Decision(
                "weights are read as they are needed",
                f"they lie on {kind}, which is not known as a network file system",
            )
        ]
    size, free = sum(file.stat().st_size for file in weights), host.memory_available()
    if free is not None and size > _PREFETCH_SHARE * free:
        why = f"{kind} is across a network, and the weights are larger than the free memory: whole files, one by one"
        return [_strategy("eager", why)]
    return [_strategy("prefetch", f"{kind} is across a network: files are read ahead, several at once")]


def _strategy(name: str, why: str) -> Decision:
    args = ("--safetensors-load-strategy", name)
    return Decision(" ".join(args), why, args=args)


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The type of the file system that a path lies on, links followed: the last mount of the longest matching point."""
    real = os.path.realpath(path)
    found, length = None, -1
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        point = _unescaped(parts[1])
        if (real == point or real.startswith(os.path.join(point, ""))) and len(point) >= length:
            found, length = parts[2], len(point)
    return found


def _unescaped(text: str) -> str:
    """The kernel writes blanks, tabs, line ends and backslashes of a path as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
