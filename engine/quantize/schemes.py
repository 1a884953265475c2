"""The schemes of llm-compressor that are offered, and what each is good for."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Scheme:
    """One way to quantize: llm-compressor's preset, whether samples are needed, and what a person should know."""

    preset: str
    calibrated: bool
    smooth: bool
    about: str


# Presets: llm-compressor 0.14, compressed_tensors.quantization.PRESET_SCHEMES.
SCHEMES: Mapping[str, Scheme] = {
    "fp8-dynamic": Scheme("FP8_DYNAMIC", False, False, "weights and activations in FP8; no calibration set"),
    "w8a8": Scheme("W8A8", True, True, "weights and activations in INT8 (SmoothQuant, then GPTQ)"),
    "w4a16": Scheme("W4A16", True, False, "weights in 4 bits, groups of 128 (GPTQ)"),
}
GAUDI = "fp8-inc"
FOR_GAUDI = (
    "fp8-inc is Intel Neural Compressor's, for Gaudi",
    "use fp8-dynamic, which is FP8 too and needs no calibration",
)
