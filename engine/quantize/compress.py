"""Quantizes a model by llm-compressor, in the environment that engine/quantize/install.sh makes.

`python -P -m engine.quantize.compress MODEL --scheme w8a8 --to FOLDER [--data FILE]`. FOLDER appears whole or not at
all; the same command again does nothing, and after a kill goes on. `berth quantize` calls it.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import names
from engine.messages import Exit, Problem, complain, say
from engine.quantize import samples
from engine.quantize.samples import Refused
from engine.quantize.schemes import SCHEMES

RECORD = "berth-quantize.json"
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.index.json")
_READ = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.jinja",
    "*.model",
    "*.txt",
    "*.tiktoken",
    "*.py",
    "LICENSE*",
)


@dataclass(frozen=True)
class Wanted:
    """One quantization."""

    model: str
    revision: str | None
    scheme: str
    to: Path
    data: Path | None
    number: int
    length: int

    def record(self, source: Path) -> dict[str, Any]:
        """What the result depends on, for those who find it and for a run that goes on."""
        weights = sorted((file.name, file.stat().st_size) for file in source.glob("*.safetensors"))
        if not weights:
            raise Refused(f"{self.model}: no .safetensors weights", "convert the model to safetensors first")
        config = json.loads((source / "config.json").read_bytes())
        if "quantization_config" in config:
            raise Refused(f"{self.model} is quantized already", "give the original model", Exit.BAD_SETTING)
        told = json.dumps([config, weights]).encode()
        by_samples = SCHEMES[self.scheme].calibrated
        return {
            "model": self.model,
            "revision": source.resolve().name if source.parent.name == "snapshots" else "",
            "source": hashlib.sha256(told).hexdigest(),
            "scheme": self.scheme,
            "data": _digest(self.data) if self.data and by_samples else "",
            "samples": self.number if by_samples else 0,
            "length": self.length if by_samples else 0,
        }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_of(wanted: Wanted) -> Path:
    """The model's folder: the one given, the built-in one, or its snapshot of the hub, what is missing fetched."""
    if wanted.model == names.DEMO:
        return Path(__file__).resolve().parents[2] / "models" / "demo"
    if (folder := Path(wanted.model).expanduser()).is_dir():
        return folder
    if wanted.model.startswith(("/", ".", "~")) or wanted.model.count("/") != 1:
        raise Refused(f"{wanted.model}: no such folder", "give a folder, or a name on the hub as org/model")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    say(f"fetching {wanted.model}")
    try:
        return Path(snapshot_download(wanted.model, revision=wanted.revision, allow_patterns=list(_READ)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        hint = "check the name, HF_TOKEN for a gated model, and the network; or fetch it first and give the folder"
        raise Refused(f"{wanted.model} cannot be fetched: {str(error).splitlines()[0]}", hint, Exit.FAILED) from None


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """One run at a time for a place; the second waits, and finds the work done."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f".{place.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run is at {place}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(wanted: Wanted) -> bool:
    """Quantize; False where that was done before. Raises Refused."""
    source = source_of(wanted)
    record = wanted.record(source)
    with alone(wanted.to):
        if wanted.to.exists():
            if _read(wanted.to / RECORD) == record:
                return False
            hint = "give another --to, or delete that folder"
            raise Refused(f"{wanted.to} is there, and is not this model quantized this way", hint)
        part = wanted.to.with_name(f".{wanted.to.name}.part")
        if _read(part / RECORD) != record:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            _write(part / RECORD, record)
        model = part / "model"
        shutil.rmtree(model, ignore_errors=True)
        _quantize(wanted, _staged(source, part), model, part / "layers")
        _complete(source, model, record)
        os.rename(model, wanted.to)
        shutil.rmtree(part)
    return True


def _staged(source: Path, part: Path) -> Path:
    """Links to the files that count: a folder may hold weights in other formats, and files that are no part of it."""
    staged = part / "source"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    for pattern in _READ:
        for file in source.glob(pattern):
            (staged / file.name).unlink(missing_ok=True)
            (staged / file.name).symlink_to(file.resolve())
    return staged


def _quantize(wanted: Wanted, source: Path, to: Path, layers: Path) -> None:
    from engine.quantize import compressor

    scheme = SCHEMES[wanted.scheme]
    if scheme.calibrated:
        assert wanted.data
        rows = samples.read(wanted.data, wanted.number)
        compressor.by_samples(source, to, layers, scheme, rows, wanted.length)
    else:
        compressor.without_samples(source, to, scheme)


def _complete(source: Path, model: Path, record: dict[str, Any]) -> None:
    """What belongs to a model beside its weights, as it was; readable by whom the user's umask lets read."""
    skipped = {name for pattern in (*_WEIGHTS, "config.json") for name in (path.name for path in source.glob(pattern))}
    for pattern in _READ:
        for file in source.glob(pattern):
            if file.name not in skipped:
                shutil.copyfile(file, model / file.name)
    _write(model / RECORD, record)
    umask = os.umask(0)
    os.umask(umask)
    for file in model.iterdir():
        file.chmod(0o666 & ~umask)
        with file.open("rb") as whole:
            os.fsync(whole.fileno())


def _read(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(file: Path, record: dict[str, Any]) -> None:
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _arguments(argv: Sequence[str]) -> Wanted:
    parser = argparse.ArgumentParser("engine.quantize.compress", description=__doc__, allow_abbrev=False)
    parser.add_argument("model")
    parser.add_argument("--revision")
    parser.add_argument("--scheme", required=True, choices=sorted(SCHEMES))
    parser.add_argument("--to", required=True, type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--samples", type=int, default=512, dest="number")
    parser.add_argument("--length", type=int, default=2048)
    given = parser.parse_args(argv)
    given.to = given.to.absolute()
    if SCHEMES[given.scheme].calibrated and not given.data:
        raise Refused(
            f"{given.scheme} needs a calibration set", "give --data FILE, JSONL or parquet; fp8-dynamic needs none"
        )
    return Wanted(**vars(given))


def main() -> int:
    """Run for this process's arguments."""
    try:
        wanted = _arguments(sys.argv[1:])
        fresh = make(wanted)
    except Refused as refused:
        complain(refused.problem)
        return refused.problem.exit_code
    except MemoryError:
        complain(
            Problem("there is not enough memory", "use a machine with more than twice the model's size", Exit.FAILED)
        )
        return Exit.FAILED
    size = sum(file.stat().st_size for file in wanted.to.glob("*.safetensors"))
    say(f"{wanted.to}: {size / 1e9:.3f} GB of weights{'' if fresh else ', made before'}")
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
