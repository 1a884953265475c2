"""Runs the calibration scripts of the vllm-gaudi plugin, which the image has, and checks what they leave.

They write into their own folder, which the image keeps read-only, so they run from a copy; they take paths without
blanks, and a file that is no pickle only as a name on the hub, of which they use a single sample (vllm-gaudi 0.26).
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from engine.messages import Exit, complain, say
from engine.quantize import gaudi, samples
from engine.quantize.samples import Refused

SCRIPTS = Path(sys.prefix, "share", "vllm-gaudi", "calibration")


def main() -> int:
    """Run for this process's arguments."""
    parser = argparse.ArgumentParser("engine.quantize.measure", allow_abbrev=False)
    parser.add_argument("model")
    for option in ("--to", "--data"):
        parser.add_argument(option, type=Path, required=True)
    for option in ("--cards", "--samples", "--batch"):
        parser.add_argument(option, type=int, required=True)
    given = parser.parse_args()
    try:
        found = measure(given.model, given.to, given.data, given.cards, given.samples, given.batch)
    except Refused as refused:
        complain(refused.problem)
        return refused.problem.exit_code
    say(f"calibrated: serve it with IF_FP8_QUANTIZATION=true and VLLM_TP_SIZE={given.cards} (QUANT_CONFIG={found})")
    return Exit.OK


def measure(model: str, to: Path, data: Path, cards: int, number: int, batch: int, scripts: Path = SCRIPTS) -> Path:
    """Calibrate, unless that was done with the same model, cards and samples; the file to serve by. Raises Refused."""
    _check(model, to, scripts)
    record = {"model": model, "tensor_parallel": cards, "samples": number, "data": _digest(data)}
    if (done := _done(to, record)) is not None:
        say(f"{to} was calibrated so before")
        return done
    _begin(to)
    with tempfile.TemporaryDirectory() as scratch:
        # The scripts tidy up after themselves where their path ends so.
        place = Path(scratch, "vllm-gaudi", "calibration")
        shutil.copytree(scripts, place)
        place.chmod(0o755)
        dataset, limit = _dataset(data, number, Path(scratch))
        words = ["-m", model, "-d", str(dataset), "-o", str(to.parent), "-b", str(batch), "-t", str(cards), *limit]
        say(f"calibrating on {cards} cards, into {to}: this loads the model several times")
        environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}
        code = subprocess.run(["bash", str(place / "calibrate_model.sh"), *words], env=environ, check=False).returncode
    if code:
        raise Refused(f"the calibration script ended with {code}", "its own words are above", Exit.FAILED)
    (to / gaudi.RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
    (to / gaudi.BEGUN).unlink()
    if (found := _done(to, record)) is None:
        raise Refused(f"the calibration script left nothing to serve by in {to}", "its words are above", Exit.FAILED)
    return found


def _check(model: str, to: Path, scripts: Path) -> None:
    if not (scripts / "calibrate_model.sh").is_file():
        hint = "use the image of Dockerfile.hpu, which has them"
        raise Refused(f"the calibration scripts are not in {scripts}", hint, Exit.MISSING_PREREQUISITE)
    if to.name != gaudi.name(model):
        raise Refused(f"{to}: the scripts would write to {gaudi.name(model)}", "let that be the folder's name")
    for text in (model, str(to)):
        if any(character.isspace() for character in text):
            raise Refused(f"{text!r}: the calibration scripts cannot take a blank in a path", "move it, or make a link")
    try:
        to.mkdir(parents=True, exist_ok=True)
        (to / ".berth-writable").touch()
        (to / ".berth-writable").unlink()
    except OSError as error:
        hint = "mount the model cache so that this user can write to it (BERTH_CACHE, SITE_MODELS)"
        raise Refused(f"{to}: {error.strerror}", hint, Exit.MISSING_PREREQUISITE) from None


def _digest(data: Path) -> str:
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _done(to: Path, record: dict[str, object]) -> Path | None:
    """The file of a calibration that was done so and is whole, or None."""
    try:
        if json.loads((to / gaudi.RECORD).read_text(encoding="utf-8")) != record:
            return None
    except (OSError, ValueError):
        return None
    cards = int(str(record["tensor_parallel"]))
    files = [to / f"maxabs_quant_{generation}.json" for generation in gaudi.GENERATIONS]
    return next((file for file in files if file.is_file() and gaudi.problem(file, None, cards) is None), None)


def _begin(to: Path) -> None:
    """What an earlier calibration left would be mixed with the new measurements."""
    (to / gaudi.BEGUN).touch()
    for name in (
        gaudi.RECORD,
        *(f"maxabs_{kind}_{g}.json" for kind in ("measure", "quant") for g in gaudi.GENERATIONS),
    ):
        (to / name).unlink(missing_ok=True)
    for generation in gaudi.GENERATIONS:
        shutil.rmtree(to / generation, ignore_errors=True)


def _dataset(data: Path, number: int, scratch: Path) -> tuple[Path, list[str]]:
    """The samples as the scripts want them: a pickled table, under a name that says so."""
    made = scratch / "samples.pkl"
    if samples.kind(data) == samples.PICKLE:
        made.symlink_to(data.resolve())
        return made, ["-l", str(number)]
    import pandas

    pairs = [samples.question(row) for row in samples.read(data, number)]
    pandas.DataFrame(pairs, columns=["system_prompt", "question"]).to_pickle(made)
    say(f"{len(pairs)} samples")
    return made, []


if __name__ == "__main__":
    sys.exit(main())
