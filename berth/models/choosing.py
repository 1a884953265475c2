"""Which files of a repository are wanted: by patterns, else those that vLLM would load."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

# Weights by format, the best first: the first that is there is fetched, the others are left out.
_FORMATS = (("*.safetensors",), ("*.bin",), ("*.pt", "*.pth"), ("*.gguf",))

# The same weights once more, for programs that vLLM is not.
_NEVER = (
    *("*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.tflite", "*.mlmodel", "*.mlpackage/*", "*.ckpt"),
    *("original/*", "metal/*", "onnx/*", "openvino/*", "coreml/*"),
)
_WEIGHTS = (*(pattern for formats in _FORMATS for pattern in formats), *_NEVER)


def is_weights(path: str) -> bool:
    """Whether a file holds weights, in any format."""
    return _matches(path, _WEIGHTS)


def wanted(paths: Iterable[str], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    """The paths to fetch, sorted. A pattern is a shell's, and `*` crosses folders; `folder/` means all in it.

    With `include`, only what matches one of its patterns; without, all but the weights that vLLM would not load:
    where there are safetensors, no other format. `exclude` takes away in both cases.
    """
    everything = sorted(set(paths))
    if include:
        chosen = [path for path in everything if _matches(path, include)]
    else:
        useful = [path for path in everything if not _matches(path, _NEVER)]
        kept = next((known for known in _FORMATS if any(_matches(path, known) for path in useful)), ())
        chosen = [path for path in useful if not is_weights(path) or _matches(path, kept)]
    return [path for path in chosen if not _matches(path, exclude)]


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)
