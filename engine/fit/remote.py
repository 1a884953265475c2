"""What the hub says of a model's size, without a byte of its weights: its configuration, and its files' headers."""

import http.client
import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from engine import hub
from engine.fit import tensors
from engine.fit.tensors import BadHeader, Weights

# Most headers are shorter than this: one request tells the length and the header.
_FIRST = 256 << 10
_AT_ONCE = 8
FAILURES = (OSError, ValueError, RecursionError, http.client.HTTPException)


def config(model: str, environ: Mapping[str, str], revision: str = "main") -> dict[str, Any]:
    """A model's config.json, parsed. Raises what FAILURES lists."""
    found = json.loads(hub.get(_file(model, revision, "config.json"), environ))
    if not isinstance(found, dict):
        raise ValueError("config.json holds no object")
    return found


def weights(model: str, environ: Mapping[str, str], layers: int, revision: str = "main") -> Weights | None:
    """The tensors of a model's safetensors files by dtype; None where the hub tells of none.

    The hub's own count serves, except where the files also hold layers past the last, which vLLM does not load: then
    the headers are read, as they are from a mirror that does not count. Raises what FAILURES lists, and BadHeader.
    """
    entry = json.loads(hub.get(f"api/models/{quote(model)}/revision/{quote(revision, safe='')}?blobs=true", environ))
    if not isinstance(entry, dict):
        raise ValueError("the hub's entry holds no object")
    names = [str(file.get("rfilename")) for file in entry.get("siblings") or [] if isinstance(file, dict)]
    files = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    drafts = config(model, environ, revision).get("num_nextn_predict_layers")
    if not drafts and (counted := _counted(entry)):
        return Weights(counted, "the hub's count of its tensors")
    if tensors.INDEX in names:
        files = tensors.listed(hub.get(_file(model, revision, tensors.INDEX), environ))
    if not files:
        return None
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        headers = pool.map(lambda name: tensors.count(_header(_file(model, revision, name), environ), layers), files)
        found = sum(headers, Counter[str]())
    return Weights(dict(found), f"the headers of its {len(files)} files on the hub")


def _counted(entry: Mapping[str, Any]) -> dict[str, int]:
    """The hub's own count of elements by dtype; empty where it has none."""
    said = entry.get("safetensors")
    found = said.get("parameters") if isinstance(said, dict) else None
    if not isinstance(found, dict) or not all(isinstance(count, int) and count >= 0 for count in found.values()):
        return {}
    return {str(dtype): count for dtype, count in found.items()}


def _file(model: str, revision: str, name: str) -> str:
    return f"{quote(model)}/resolve/{quote(revision, safe='')}/{quote(name)}"


def _header(path: str, environ: Mapping[str, str]) -> bytes:
    first = hub.get(path, environ, (0, _FIRST - 1))
    length = tensors.header_length(first)
    rest = hub.get(path, environ, (_FIRST, length + 7)) if length + 8 > _FIRST else b""
    header = (first + rest)[8 : length + 8]
    if len(header) != length:
        raise BadHeader("cut short")
    return header
