"""Asks the model hub, briefly, what would fail minutes later: is a model there, gated, too big for the disk."""

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.values import TRUE_WORDS

TIMEOUT_S = 10.0  # as long as huggingface_hub itself waits for a file's entry

# Organisations whose models are behind a click on the hub, for the case that the hub cannot be asked. By their model
# pages; a name that is missing here only means a later message.
GATED = ("meta-llama/", "google/gemma", "mistralai/Mistral-Large", "mistralai/Codestral", "bigcode/starcoder")


@dataclass(frozen=True)
class Answer:
    """What the hub said of a model."""

    reachable: bool
    status: int = 0
    gated: bool = False
    size: int | None = None  # bytes of what vLLM would download


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether huggingface_hub is told not to use the network."""
    return any(environ.get(name, "").lower() in TRUE_WORDS for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def token(environ: Mapping[str, str]) -> str | None:
    """The token that huggingface_hub would use: HF_TOKEN, else the file that HF_TOKEN_PATH or `hf auth login` names."""
    if value := (environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN") or "").strip():
        return value
    home = (
        environ.get("HF_HOME") or f"{environ.get('XDG_CACHE_HOME') or environ.get('HOME', '/') + '/.cache'}/huggingface"
    )
    try:
        return Path(environ.get("HF_TOKEN_PATH") or f"{home}/token").read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def get(path: str, environ: Mapping[str, str], part: tuple[int, int] | None = None) -> bytes:
    """What the hub answers for a path, through the proxies that the environment names; of a file, bytes `part` alone.

    Raises OSError (HTTPError for a status that is an error), ValueError and http.client.HTTPException.
    """
    endpoint = (environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    request = urllib.request.Request(f"{endpoint}/{path}")
    if secret := token(environ):  # not for the stores that the hub sends one on to
        request.add_unredirected_header("Authorization", f"Bearer {secret}")
    if part is not None:
        request.add_header("Range", f"bytes={part[0]}-{part[1]}")
    proxies = {
        scheme: address
        for scheme in ("http", "https")
        if (address := environ.get(f"{scheme}_proxy") or environ.get(f"{scheme.upper()}_PROXY"))
    }
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    with opener.open(request, timeout=TIMEOUT_S) as reply:
        if part is None:
            return bytes(reply.read())
        if part[0] and reply.status != HTTPStatus.PARTIAL_CONTENT:
            raise ValueError(f"{endpoint} does not send parts of files")
        return bytes(reply.read(part[1] - part[0] + 1))


def ask(model: str, environ: Mapping[str, str]) -> Answer:
    """Ask the hub for a model's entry. Never raises."""
    try:
        entry = json.loads(get(f"api/models/{quote(model)}?blobs=true", environ))
    except urllib.error.HTTPError as error:
        return Answer(error.code < HTTPStatus.INTERNAL_SERVER_ERROR, error.code)
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        # A certificate that Python alone does not trust decides nothing: huggingface_hub brings certificates along.
        return Answer(isinstance(getattr(error, "reason", None), ssl.SSLError))
    if not isinstance(entry, dict):
        return Answer(False)
    return Answer(True, HTTPStatus.OK, entry.get("gated") not in (None, False), _size(entry))


def _size(entry: Mapping[str, Any]) -> int | None:
    """Bytes of the safetensors files, or of the .bin files where there are none; None where the hub tells no sizes."""
    files = [file for file in entry.get("siblings") or [] if isinstance(file, dict)]
    for ending in (".safetensors", ".bin", ".gguf"):
        sizes = [file.get("size") for file in files if str(file.get("rfilename", "")).endswith(ending)]
        if sizes and all(isinstance(size, int) for size in sizes):
            return sum(size for size in sizes if isinstance(size, int))
    return None
