"""What an engine is doing, told from the lines that vLLM and the launcher write.

The patterns are those of vLLM 0.26 to 0.32 and of the vllm-gaudi plugin. A line that none matches changes nothing, so a
new wording costs detail and never a wrong answer: whether the engine is ready is asked of the service, not of the log.
"""

import re
from dataclasses import dataclass

PULLING = "pulling images"
BUILDING = "building images"
INSTALLING = "installing vLLM"
STARTING = "starting vLLM"
DOWNLOADING = "downloading the model"
LOADING = "loading weights"
COMPILING = "compiling"
WARMING = "warming up"
READY = "ready"


@dataclass(frozen=True)
class Phase:
    """A phase by its name; `fraction` is how much of it is done (0 to 1) where that is known."""

    name: str
    fraction: float | None = None
    detail: str = ""


_SHARDS = re.compile(r"Loading .{0,60}shards:\s+(\d+)% Completed \| (\d+/\d+)")
_HPU_WARMUP = re.compile(r"\[Warmup\](?:\[\w+\])*\[(\d+)/(\d+)\]")
_GRAPHS = re.compile(r"Capturing CUDA graphs.{0,60}?(\d+)%\|.*?(\d+/\d+)")
_PLAIN = (
    (re.compile(r"Starting to load model|Loading model from scratch"), LOADING),
    (re.compile(r"Warming up model for the compilation|Dynamo bytecode transform|Compiling a graph"), COMPILING),
    (re.compile(r"Warming up done|Initial profiling/warmup|torch\.compile took|Starting warmup|\[Warmup\]"), WARMING),
    (re.compile(r"Starting vLLM (?:API )?server|Application startup complete"), WARMING),
    (re.compile(r"^berth: |non-default args"), STARTING),
)


def phase_of(line: str) -> Phase | None:
    """The phase that a log line announces, or None for a line that announces none."""
    if match := _SHARDS.search(line):
        return Phase(LOADING, int(match[1]) / 100, f"{match[2]} files")
    if match := _HPU_WARMUP.search(line):
        done, total = int(match[1]), int(match[2])
        return Phase(WARMING, done / total if total else None, f"{done}/{total} shapes")
    if match := _GRAPHS.search(line):
        return Phase(WARMING, int(match[1]) / 100, f"{match[2]} CUDA graphs")
    for pattern, name in _PLAIN:
        if pattern.search(line):
            return Phase(name)
    return None
