"""What is to be quantized, and everything about it that can be refused before anything starts."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berth import deployment as deployments
from berth.deployment import Deployment
from berth.errors import BerthError, Exit, failed
from berth.paths import shown
from engine import devices, names
from engine.quantize import gaudi, samples
from engine.quantize.schemes import GAUDI, SCHEMES

SIZES = (1, 100_000)
MISSING = Exit.MISSING_PREREQUISITE


@dataclass(frozen=True)
class Plan:
    """One quantization. `to` is None for Gaudi's calibration, which leaves the model as it is."""

    deployment: Deployment
    scheme: str
    to: Path | None
    data: Path | None
    samples: int
    length: int
    trust_pickle: bool

    @property
    def for_gaudi(self) -> bool:
        """Whether Intel Neural Compressor does it, in the serving image."""
        return self.scheme == GAUDI

    @property
    def model(self) -> str:
        """The model, a folder as an absolute path."""
        model = self.deployment.model
        here = Path(model).expanduser()
        return str(here.absolute()) if model != names.DEMO and here.is_dir() else model

    def compress(self) -> list[str]:
        """The words after `python -P` that quantize by llm-compressor."""
        assert self.to
        words = ["-m", "engine.quantize.compress", self.model, "--scheme", self.scheme, "--to", str(self.to)]
        if revision := self.deployment.value("VLLM_REVISION"):
            words += ["--revision", revision]
        if SCHEMES[self.scheme].calibrated:
            words += ["--data", str(self.data), "--samples", str(self.samples), "--length", str(self.length)]
        return words

    def calibrate(self, data: str) -> list[str]:
        """The words after `python -P` that calibrate for Gaudi."""
        trust = str(self.trust_pickle).lower()
        return [
            "-m",
            "engine.quantize.calibrate",
            f"--data={data}",
            f"--samples={self.samples}",
            f"--trust-pickle={trust}",
        ]

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        device = self.deployment.device
        return {"model": self.deployment.model, "scheme": self.scheme, "device": device, "to": str(self.to or "")}

    def words(self) -> str:
        """What a person is told in the end: how to serve it."""
        if not self.for_gaudi:
            return f"{shown(self.to or Path())}: serve it with {names.MODEL}={self.to}"
        place = f"inc/{gaudi.name(self.deployment.model)} in the model cache"
        return f"calibrated, in {place}: serve it with {names.FP8}=true and the same VLLM_TP_SIZE"


def settle(
    model: str | None,
    files: Sequence[Path],
    device: str | None,
    scheme: str | None,
    to: Path | None,
    data: Path | None,
    number: int,
    length: int,
    trust_pickle: bool,
) -> Plan:
    """Look at everything. Raises BerthError for what cannot work, with what would."""
    shell = {**os.environ, **({names.MODEL: model} if model else {})}
    deployment = deployments.resolve(files, device, shell)
    deployments.check_settings(deployment)
    scheme = scheme or (GAUDI if device_of_gaudi(deployment) else "fp8-dynamic")
    if scheme not in (*SCHEMES, GAUDI):
        raise failed(f"--scheme {scheme}: no such scheme", f"one of {', '.join([*SCHEMES, GAUDI])}", Exit.BAD_SETTING)
    if why := devices.load(deployment.device).cannot_serve(scheme):
        raise failed(f"--scheme {scheme} on {deployment.device}: {why[0]}", why[1], Exit.BAD_SETTING)
    plan = Plan(
        deployment,
        scheme,
        to.absolute() if to else None,
        data.absolute() if data else None,
        number,
        length,
        trust_pickle,
    )
    if not deployment.model:
        raise failed("no model is named", f"berth quantize MODEL, or {names.MODEL} in an env file", Exit.BAD_SETTING)
    _check_places(plan)
    _check_data(plan)
    return plan


def device_of_gaudi(deployment: Deployment) -> bool:
    """Whether the device is the one that Intel Neural Compressor calibrates for."""
    from engine.quantize.calibrate import DEVICE

    return deployment.device == DEVICE


def _check_places(plan: Plan) -> None:
    if plan.for_gaudi and plan.to:
        raise failed("--to is not for fp8-inc, which leaves the model as it is", "leave --to out", Exit.BAD_SETTING)
    if not plan.for_gaudi and not plan.to:
        raise failed("--to is missing: where the smaller model goes", "--to FOLDER, a new one", Exit.BAD_SETTING)
    if plan.to and plan.to.is_file():
        raise failed(f"--to {shown(plan.to)}: a file", "name a folder that is not there yet", Exit.BAD_SETTING)


def _check_data(plan: Plan) -> None:
    needed = plan.for_gaudi or SCHEMES[plan.scheme].calibrated
    if not needed:
        return
    if plan.data is None:
        hint = "--data FILE, JSONL or parquet (docs/quantize.md)" + (
            "" if plan.for_gaudi else "; fp8-dynamic needs none"
        )
        raise failed(f"{plan.scheme} needs a calibration set", hint, Exit.BAD_SETTING)
    try:
        if (kind := samples.kind(plan.data)) == samples.JSONL:
            samples.read(plan.data, plan.samples)
        elif kind == samples.PICKLE and not (plan.for_gaudi and plan.trust_pickle):
            trust = ", or add --trust-pickle for a file that you trust" if plan.for_gaudi else ""
            raise failed(
                f"{shown(plan.data)}: a pickle runs whatever code it holds when it is read",
                f"give JSONL or parquet{trust}",
                Exit.BAD_SETTING,
            )
    except samples.Refused as refused:
        raise BerthError(refused.problem) from None
