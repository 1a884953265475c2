"""What can be known of a model without vLLM: where its files are, how big they are, what its KV cache costs."""

import glob
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.fit import shape
from engine.fit.shape import Shape

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")  # in vLLM's order: the first kind that is there is loaded


@dataclass(frozen=True)
class ModelFiles:
    """A model's folder on this machine."""

    folder: Path

    def weights(self) -> int | None:
        """Bytes of the weights; None where there are none."""
        for pattern in _WEIGHTS:
            if sizes := [file.stat().st_size for file in self.folder.glob(pattern) if file.is_file()]:
                return sum(sizes)
        return None

    def whole_config(self) -> dict[str, Any]:
        """config.json; empty where it cannot be read."""
        try:
            config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return config if isinstance(config, dict) else {}

    def shape(self) -> Shape | None:
        """Layers, heads and what else decides sizes; None for a model that is not known well enough."""
        try:
            return shape.read(self.whole_config())
        except shape.Unreadable:
            return None

    def weight_bits(self) -> int | None:
        """Bits of a quantized weight, as GPTQ, AWQ and compressed-tensors say it; None where nothing says it."""
        said = self.whole_config().get("quantization_config")
        if not isinstance(said, dict):
            return None
        groups = said.get("config_groups")
        weights = (
            [group.get("weights") for group in groups.values() if isinstance(group, dict)]
            if isinstance(groups, dict)
            else []
        )
        bits = [said.get("bits"), *(each.get("num_bits") for each in weights if isinstance(each, dict))]
        return min((each for each in bits if isinstance(each, int)), default=None)


def is_path(model: str) -> bool:
    """Whether a model's name is meant as a path rather than as a name on the hub."""
    in_repository = model.endswith(".gguf") and model.count("/") == 2  # org/name/file.gguf is on the hub
    return (
        model.startswith(("/", "./", "../", "~"))
        or (model.count("/") > 1 and not in_repository)
        or os.path.exists(model)
    )


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps models, by its own rules."""
    if cache := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(cache)
    if home := environ.get("HF_HOME"):
        return Path(home) / "hub"
    cache_home = environ.get("XDG_CACHE_HOME") or f"{environ.get('HOME', '/')}/.cache"
    return Path(cache_home) / "huggingface" / "hub"


def cache_below(model: str, environ: Mapping[str, str]) -> Path | None:
    """The hub's cache that holds the model where it lies a folder below the one that is named: what an unpacked tar is.

    None where the named one holds it, where none below does, and where several do.
    """
    cache, repository = hub_cache(environ), "models--" + model.replace("/", "--")
    if is_path(model) or (cache / repository).exists():
        return None
    found = [each.parent for each in cache.glob(f"*/{glob.escape(repository)}")]
    return found[0] if len(found) == 1 else None


def find(model: str, environ: Mapping[str, str], values: Mapping[str, str]) -> ModelFiles | None:
    """The model's files here: its folder, or its snapshot in the hub's cache; None where neither is."""
    if os.path.isdir(folder := os.path.expanduser(model)):
        return ModelFiles(Path(folder))
    cache = Path(values["download-dir"]) if values.get("download-dir") else hub_cache(environ)
    repository = cache / ("models--" + model.replace("/", "--"))
    revision = values.get("revision") or "main"
    try:
        commit = (repository / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = revision
    snapshot = repository / "snapshots" / commit
    return ModelFiles(snapshot) if os.path.exists(snapshot / "config.json") else None
