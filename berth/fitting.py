"""`berth plan`: finds a model's configuration and weights, here or on the hub, and makes the plan for them."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from berth.deployment import Deployment
from berth.errors import BerthError, Exit, failed
from engine import arguments, catalog, devices, hub, model, names, settings
from engine.decisions import Situation
from engine.fit import cards, estimate, plan, remote, shape, tensors, wishes
from engine.fit.cards import Card
from engine.fit.plan import Plan, Wish
from engine.fit.shape import Shape

_SAMPLE, _PIECE, _SAMPLE_S = 256 << 20, 16 << 20, 2.0
_FOLDER = "give a folder with config.json, or a name on the hub such as Qwen/Qwen3-8B"


@dataclass(frozen=True)
class Model:
    """A model whose size is known: `weights` in bytes as vLLM holds them, `stored` by dtype as the files do."""

    name: str
    shape: Shape
    weights: int
    stored: Mapping[str, int]  # empty where no headers were read
    source: str
    folder: Path | None  # where its files are, if they are here


def look(name: str, environ: Mapping[str, str], values: Mapping[str, str]) -> Model:
    """Find the model here or on the hub, and learn its size. Raises BerthError."""
    path = settings.model_path(name) or name
    files = model.find(path, environ, values)
    if files is None and (model.is_path(path) or "://" in path):
        raise failed(f"{name}: no folder with a model", _FOLDER, Exit.BAD_SETTING)
    try:
        if files is None:
            return _on_the_hub(name, environ, values)
        read = _read(files.whole_config(), values)
        found = tensors.local(files.folder, read.layers)
        return _weighed(name, read, found, values, files.folder)
    except shape.Unreadable as error:
        raise failed(f"{name}: {error}", "docs/plan.md lists the kinds of models that can be planned for") from error
    except tensors.BadHeader as error:
        raise failed(f"{name}: its safetensors files cannot be read ({error})", "fetch the model again") from error


def _on_the_hub(name: str, environ: Mapping[str, str], values: Mapping[str, str]) -> Model:
    endpoint = environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if hub.is_offline(environ):
        raise failed(f"{name} is not here, and HF_HUB_OFFLINE forbids to ask the hub", _FOLDER, Exit.BAD_SETTING)
    revision = values.get("revision") or "main"
    try:
        read = _read(remote.config(name, environ, revision), values)
        found = remote.weights(name, environ, read.layers, revision)
    except shape.Unreadable:
        raise
    except remote.FAILURES as error:
        if (status := getattr(error, "code", None)) in (401, 403, 404):
            hint = f"check the name; a gated or private model needs {names.HF_TOKEN}"
            raise failed(
                f"{endpoint} shows no config.json of {name} (HTTP {status})", hint, Exit.BAD_SETTING
            ) from error
        raise failed(f"{endpoint} does not tell of {name} ({error})", _FOLDER, Exit.MISSING_PREREQUISITE) from error
    return _weighed(name, read, found, values, None)


def _read(config: Mapping[str, object], values: Mapping[str, str]) -> Shape:
    return shape.computing_in(shape.read(config), values.get("dtype", "auto"))


def _weighed(
    name: str, read: Shape, found: tensors.Weights | None, values: Mapping[str, str], folder: Path | None
) -> Model:
    quantization = values.get("quantization")
    if found is None:
        weights = estimate.weight_bytes(read, quantization)
        return Model(name, read, weights, {}, "reckoned from config.json", folder)
    return Model(name, read, found.bytes_for(read, quantization), found.by_dtype, found.source, folder)


def values_of(deployment: Deployment) -> dict[str, str]:
    """What each flag is set to by a deployment's settings. Raises BerthError for settings that are wrong."""
    try:
        known = catalog.load(deployment.device, deployment.shell)
    except catalog.CatalogError as error:
        raise BerthError(error.problem) from error
    reading = settings.read(deployment.environ, known, deployment.device)
    return arguments.with_config_file(arguments.values(reading.args(), known))


def card(name: str | None, device: str | None, environ: Mapping[str, str]) -> Card:
    """The card asked for, else what this machine has. Raises BerthError for a name that nobody knows."""
    if name is not None:
        try:
            return cards.find(name)
        except cards.UnknownCard as error:
            raise BerthError(error.problem) from error
    here = device or next(iter(devices.detect()))
    whole = Situation(environ, {"gpu-memory-utilization": "1"}, None)
    memory = devices.load(here).room(whole) if here != cards.CPU else None
    if memory:
        count = devices.load(here).visible_devices(environ) or 1
        return Card(f"{here} of this machine", here, memory, memory, count)
    if here != cards.CPU:
        known = ", ".join(name for name, one in cards.table().items() if one.device == here)
        raise failed(f"there is no card for {here} here to plan for", f"name one: --gpu {known}", Exit.BAD_SETTING)
    return cards.find(cards.CPU)


def make(found: Model, chosen: Card, wish: Wish) -> Plan:
    """The plan. Raises BerthError for a cache that is not known."""
    try:
        return plan.make(found.shape, found.weights, chosen, wish)
    except shape.Unreadable as error:
        raise failed(f"{found.name}: {error}", "docs/plan.md lists what can be planned for") from error


def wish(
    values: Mapping[str, str], environ: Mapping[str, str], context: int | None, concurrency: int
) -> tuple[Wish, tuple[int, int] | None]:
    """What is asked for, without a layout; and the layout that the settings name, if they name one."""
    said = wishes.of(values, environ)
    layout = (said.tensor or 1, said.pipeline or 1) if said.tensor or said.pipeline else None
    asked = replace(said, tensor=None, pipeline=None, concurrency=concurrency)
    return (replace(asked, context=context) if context else asked), layout


def read_rate(folder: Path) -> float | None:
    """Bytes a second with which the largest file of weights is read, measured on a part that is not in memory."""
    files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    if not files or files[-1].stat().st_size < _PIECE:
        return None
    done, begin = 0, time.monotonic()
    with files[-1].open("rb", buffering=0) as file:
        length = min(_SAMPLE, os.fstat(file.fileno()).st_size)
        os.posix_fadvise(file.fileno(), 0, length, os.POSIX_FADV_DONTNEED)
        while done < length and time.monotonic() - begin < _SAMPLE_S:
            piece = len(file.read(min(_PIECE, length - done)))
            if not piece:
                break
            done += piece
    return done / max(1e-6, time.monotonic() - begin)
