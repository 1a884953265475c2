"""Calibrates a model for FP8 on Gaudi, in the image that serves it and by the same settings.

`python -P -m engine.quantize.calibrate --data FILE [--samples N] [--batch N] [--trust-pickle true]`. What serving would
refuse is refused here, too; then engine.quantize.measure takes this process's place, which runs the plugin's scripts.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine import devices, names, serve
from engine.messages import Exit, Problem, complain, say
from engine.quantize import gaudi, samples
from engine.quantize.samples import Refused

DEVICE = "hpu"
_LEFT_OUT = (names.FP8, "QUANT_CONFIG", names.PHASE_FILE)


def command(argv: Sequence[str], environ: Mapping[str, str], given: argparse.Namespace) -> list[str]:
    """Of the command that would serve, the one that measures: its model, and as many cards."""
    at = list(argv).index("serve")
    words = list(argv)[at + 1 :]
    model = words[0] if words and not words[0].startswith("-") else ""
    cards = "1"
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, _, value = word.partition("=")
        if flag == "--model":
            model = value or following
        elif flag in ("--tensor-parallel-size", "-tp"):
            cards = value or following
    place = ["--to", str(gaudi.folder(model, environ)), "--cards", cards]
    told = ["--data", str(given.data), "--samples", str(given.samples), "--batch", str(given.batch)]
    return [sys.executable, "-P", "-m", "engine.quantize.measure", model, *place, *told]


def problem(environ: Mapping[str, str]) -> Problem | None:
    """Why nothing is calibrated here: it is another device."""
    device = environ.get(names.DEVICE) or next(iter(devices.detect()), "")
    if device == DEVICE:
        return None
    hint = "berth quantize --scheme fp8-dynamic makes an FP8 model for CUDA and CPU, w8a8 an INT8 one"
    return Problem(f"FP8 calibration by Intel Neural Compressor is for Gaudi, and this is {device}", hint)


def trusted(data: Path, trust: str) -> None:
    """A pickle runs what it holds: read on the user's word alone. Raises Refused."""
    if samples.kind(data) != samples.PICKLE:
        samples.read(data, 1)
    elif trust != "true":
        raise Refused(
            f"{data}: a pickle runs whatever code it holds when it is read",
            "give JSONL or parquet, or --trust-pickle true (FP8_TRUST_PICKLE=true) for a file that you trust",
        )
    else:
        say(f"{data} is a pickle, which may run any code with this container's rights; it is trusted as you asked")


def main() -> int:
    """Run for this process's arguments; returns only with a problem, or for a dry run."""
    parser = argparse.ArgumentParser("engine.quantize.calibrate", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--trust-pickle", default="false")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    environ = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
    if wrong := problem(environ):
        complain(wrong)
        return Exit.BAD_SETTING
    try:
        trusted(given.data, given.trust_pickle)
    except Refused as refused:
        complain(refused.problem)
        return refused.problem.exit_code
    mode = ["--dry-run"] if given.dry_run else []
    return serve.launch(mode, environ, lambda argv: command(argv, environ, given))


if __name__ == "__main__":
    sys.exit(main())
