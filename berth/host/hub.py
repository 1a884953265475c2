"""The model hub: whether it answers, how large a model is, and what of it is here already."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

HUB = "https://huggingface.co"
TIMEOUT_S = 8.0
_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
_TRUE = {"1", "true", "yes", "on"}


@dataclass(frozen=True)
class Answer:
    """What the hub said about a model: `reachable`, the HTTP status, and the size of its files in bytes."""

    reachable: bool
    why: str = ""
    status: int | None = None
    size: int | None = None


def address(environ: Mapping[str, str]) -> str:
    """The hub's address: HF_ENDPOINT, else the public one."""
    return (environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def ask(model: str, environ: Mapping[str, str]) -> Answer:
    """Ask the hub about a model. Any answer to HTTP counts as reachable; never raises."""
    if (environ.get("HF_HUB_OFFLINE") or "").lower() in _TRUE:
        return Answer(False, "HF_HUB_OFFLINE is set")
    import httpx

    url = f"{address(environ)}/api/models/{quote(model)}"
    token = environ.get("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(url, params={"blobs": "true"}, headers=headers, timeout=TIMEOUT_S, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return Answer(False, f"{address(environ)}: {error}")
    return Answer(True, status=answer.status_code, size=_size(answer.text) if answer.is_success else None)


def _size(body: str) -> int | None:
    """Bytes of what vLLM downloads: safetensors where the model has them, else all weights, and the small files."""
    import json

    try:
        files = {file["rfilename"]: int(file.get("size") or 0) for file in json.loads(body)["siblings"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    safe = any(name.endswith(".safetensors") and "/" not in name for name in files)
    wanted = [
        size
        for name, size in files.items()
        if "/" not in name and (name.endswith(".safetensors") or not name.endswith(_WEIGHTS) or not safe)
    ]
    return sum(wanted) or None


def cache(environ: Mapping[str, str]) -> Path:
    """The hub cache as huggingface_hub finds it."""
    if given := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(given).expanduser()
    home = environ.get("HF_HOME") or f"{environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'}/huggingface"
    return Path(home).expanduser() / "hub"


def folder(model: str, directory: Path) -> Path:
    """Where a model lies in a hub cache."""
    return directory / f"models--{model.replace('/', '--')}"


def is_cached(model: str, directory: Path) -> bool:
    """Whether a snapshot with weights lies in the cache and no file of it is still on its way."""
    place = folder(model, directory)
    try:
        if any(place.glob("blobs/*.incomplete")):
            return False
        return any(file.suffix in _WEIGHTS for file in place.glob("snapshots/*/*") if file.exists())
    except OSError:
        return False


def downloaded(model: str, directory: Path) -> int:
    """Bytes of a model that have arrived so far, partly loaded files included."""
    total = 0
    try:
        for file in folder(model, directory).glob("blobs/*"):
            stat = file.stat()
            total += min(stat.st_size, stat.st_blocks * 512)  # a file may be made at full size before it is filled
    except OSError:
        pass
    return total
