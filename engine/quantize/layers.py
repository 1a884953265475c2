"""GPTQ layer by layer, each layer written down when it is done, so that a run that was killed goes on where it was.

Runs in llm-compressor's environment. A run that goes on still propagates its samples through the layers that are done,
which costs a small part of quantizing them, and ends with the same bytes as a run that was never interrupted.
"""

import os
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.utils import update_offload_parameter
from llmcompressor.modifiers.gptq import GPTQModifier
from pydantic import PrivateAttr
from safetensors.torch import load_file, save_file

from engine.messages import say

_PARAMETERS = ("weight", "weight_scale", "weight_zero_point")


class Resuming(GPTQModifier):  # type: ignore[misc] # llm-compressor has no types
    """GPTQ that keeps each layer's result in `folder`."""

    _folder: Path = PrivateAttr()
    _layer: int = PrivateAttr(default=0)
    _layers: int = PrivateAttr(default=0)

    @classmethod
    def of(cls, folder: Path, layers: int, **options: Any) -> "Resuming":
        """The modifier with llm-compressor's own options; `layers` is how many there will be, for the log."""
        made = cls(**options)
        folder.mkdir(parents=True, exist_ok=True)
        made._folder, made._layers = folder, layers
        return made

    def _file(self, layer: int) -> Path:
        return self._folder / f"{layer:04}.safetensors"

    def calibrate_module(self, module: torch.nn.Module, args: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
        """Gather what quantizing a module needs; of a module that is done, only that it was seen."""
        if self._file(self._layer).exists():
            self._num_samples[module] = torch.zeros(())
        else:
            super().calibrate_module(module, args, _output)

    def compress_module_list(self, module_list: list[torch.nn.Module]) -> None:
        """Quantize one layer's modules, or take them from the file."""
        if not module_list:
            return
        file = self._file(self._layer)
        names = {self._module_names[module]: module for module in module_list}
        if file.exists():
            for key, value in load_file(file).items():
                name, _, parameter = key.rpartition(".")
                update_offload_parameter(names[name], parameter, value)
            for module in module_list:
                self._num_samples.pop(module)
        else:
            super().compress_module_list(module_list)
            self._keep(file, names)
        self._layer += 1
        say(f"layer {self._layer} of {self._layers}")

    def _keep(self, file: Path, names: dict[str, torch.nn.Module]) -> None:
        tensors = {
            f"{name}.{parameter}": value.detach().to("cpu").contiguous()
            for name, module in names.items()
            for parameter in _PARAMETERS
            if (value := getattr(module, parameter, None)) is not None
        }
        written = file.with_suffix(".new")
        save_file(tensors, written)
        with written.open("rb") as whole:
            os.fsync(whole.fileno())
        written.replace(file)
