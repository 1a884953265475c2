"""Where FP8 calibration for Gaudi lies, and what must hold before a model is served from it.

Its files name each other by absolute paths, so calibration and serving must see them at the same place. The hub cache
is mounted alike everywhere, and so they lie in it: HF_HOME/inc/<last part of the model's name, in small letters>.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.messages import Problem

GENERATIONS = ("g2", "g3")
RECORD = "berth-calibration.json"
# The calibration script writes the file that serving looks for before it measures: while this one is there, it lies.
BEGUN = ".berth-calibrating"
# Intel's kit mounted its folder here.
_ELSEWHERE = (Path("/data/inc"),)
_AGAIN = "calibrate the model for this card: docs/quantize.md"


def folder(model: str, environ: Mapping[str, str]) -> Path:
    """Where a model's calibration is written."""
    home = environ.get("HF_HOME") or f"{environ.get('HOME', '/')}/.cache/huggingface"
    return Path(home) / "inc" / name(model)


def name(model: str) -> str:
    """What the calibration script calls a model."""
    return model.rstrip("/").rpartition("/")[2].lower()


def quant_config(model: str, environ: Mapping[str, str], generation: str | None) -> Path:
    """The file that serving reads: of this card's generation, else of the one that there is, else of Gaudi 2."""
    places = [folder(model, environ), *(place / name(model) for place in _ELSEWHERE)]
    place = next((each for each in places if each.is_dir()), places[0])
    written = [each for each in GENERATIONS if (place / f"maxabs_quant_{each}.json").is_file()]
    return place / f"maxabs_quant_{generation or (written[0] if len(written) == 1 else 'g2')}.json"


def problem(path: Path, generation: str | None, cards: int) -> Problem | None:
    """Why a model cannot be served from a calibration on this many cards of this generation, or None."""
    if not path.is_file():
        others = sorted(each.name for each in path.parent.glob("maxabs_quant_*.json"))
        why = f" ({', '.join(others)} is for another card)" if others else ""
        return Problem(f"QUANT_CONFIG: {path} is not there{why}", _AGAIN)
    if (path.parent / BEGUN).exists():
        return Problem(f"the calibration in {path.parent} was not finished", "run it again: docs/quantize.md")
    said = _object(path)
    if said.get("mode") != "QUANTIZE":
        return Problem(f"QUANT_CONFIG: {path} is not what to quantize by", 'a file that says "mode": "QUANTIZE"')
    if (generation in GENERATIONS) and path.stem.endswith(tuple({*GENERATIONS} - {generation})):
        return Problem(f"QUANT_CONFIG: {path} is for another generation than this card, {generation}", _AGAIN)
    return _measurements(path, said) or _same_cards(path, cards)


def _measurements(path: Path, said: Mapping[str, Any]) -> Problem | None:
    """What was measured lies where the file says; some ways to quantize measure nothing."""
    if said.get("dynamic_quantization") or str(said.get("scale_method", "")).startswith("unit_scale"):
        return None
    prefix = Path(str(said.get("dump_stats_path") or "nowhere"))
    if prefix.is_absolute() and any(prefix.parent.glob(f"{prefix.name}*")):
        return None
    hint = f"mount the folder that calibration wrote to at the same path, or {_AGAIN}"
    return Problem(f"QUANT_CONFIG: {path} reads its measurements from {prefix}*, and there are none", hint)


def _same_cards(path: Path, cards: int) -> Problem | None:
    measured = _object(path.parent / RECORD).get("tensor_parallel")
    if measured in (None, cards):
        return None
    hint = f"set VLLM_TP_SIZE={measured}, or calibrate again with VLLM_TP_SIZE={cards}"
    return Problem(f"{path.parent} was calibrated on {measured} cards, and VLLM_TP_SIZE is {cards}", hint)


def _object(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
