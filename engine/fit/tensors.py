"""What weights weigh, by the headers of their safetensors files: no weight is read.

A file begins with eight bytes, the length of a JSON header that lists every tensor's dtype, shape and place
(https://huggingface.co/docs/safetensors).
"""

import json
import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from engine.fit.shape import Shape

LONGEST_HEADER = 100 << 20  # bytes; the format's own limit
INDEX = "model.safetensors.index.json"

# Bits of one element.
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
_FLOATS = ("F64", "F32", "F16", "BF16")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


class BadHeader(Exception):
    """A file that is no safetensors file."""


@dataclass(frozen=True)
class Weights:
    """Elements of the tensors by dtype, and where that was learned."""

    elements: Mapping[str, int]
    source: str

    def bytes_for(self, shape: Shape, quantization: str | None = None) -> int:
        """Bytes as vLLM holds them: numbers of more than 16 bits become 16 unless the model is quantized."""
        from engine.fit.estimate import bits_of, parameters

        stored = {dtype: count * _BITS.get(dtype, 16) // 8 for dtype, count in self.elements.items()}
        if shape.quantization or any(dtype not in _FLOATS for dtype in stored):
            return sum(stored.values())
        total = sum(self.elements.values())
        if quantization:  # while it is loaded
            rest = min(total, parameters(shape)[1])
            return int((total - rest) * bits_of(shape, quantization) / 8) + rest * shape.dtype_bytes
        return total * shape.dtype_bytes

    @property
    def by_dtype(self) -> dict[str, int]:
        """Bytes as the files hold them, by dtype."""
        return {dtype: count * _BITS.get(dtype, 16) // 8 for dtype, count in sorted(self.elements.items())}


def header_length(first: bytes) -> int:
    """Length of the header that follows a file's first eight bytes. Raises BadHeader."""
    if len(first) < 8:
        raise BadHeader("shorter than eight bytes")
    length = int(struct.unpack("<Q", first[:8])[0])
    if not 2 <= length <= LONGEST_HEADER:
        raise BadHeader(f"a header of {length} bytes")
    return length


def count(header: bytes, layers: int | None = None) -> Counter[str]:
    """Elements by dtype of a header's tensors. Tensors of layers from `layers` on are not loaded by vLLM (drafts).

    Raises BadHeader for what is no header.
    """
    try:
        entries = json.loads(header)
        found: Counter[str] = Counter()
        for name, entry in entries.items():
            match = _LAYER.search(name)
            if name != "__metadata__" and not (match and layers is not None and int(match[1]) >= layers):
                found[str(entry["dtype"])] += prod(_sizes(entry))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadHeader(f"no header: {type(error).__name__}") from error
    return found


def _sizes(entry: Mapping[str, Any]) -> Iterable[int]:
    for size in entry["shape"]:
        if not isinstance(size, int) or not 0 <= size < 1 << 48:
            raise ValueError("no size")
        yield size


def listed(index: bytes) -> list[str]:
    """The files that an index names. Raises BadHeader."""
    try:
        return sorted(set(json.loads(index)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadHeader(f"no index: {type(error).__name__}") from error


def local(folder: Path, layers: int | None = None) -> Weights | None:
    """The weights in a folder; None where it has no safetensors files. Raises BadHeader, and OSError."""
    index = folder / INDEX
    files = [folder / name for name in listed(index.read_bytes())] if index.is_file() else []
    files = [file for file in files if file.is_file()] or sorted(folder.glob("*.safetensors"))
    found: Counter[str] = Counter()
    for file in files:
        with file.open("rb") as stream:
            found += count(stream.read(header_length(stream.read(8))), layers)
    return Weights(dict(found), "the headers of its safetensors files") if found else None
