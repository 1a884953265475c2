"""The devices that the launcher knows: one module each, found by looking, so that a new one is a new file."""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from engine.decisions import Decision, Situation
from engine.messages import Problem


@dataclass(frozen=True)
class Detection:
    """What was found of a device on this machine."""

    count: int
    why: str
    accelerator: bool = True


class Device(Protocol):
    """What a device's module offers."""

    VARIABLES: Mapping[str, str]  # names beyond vLLM's own that this device alone reads, with what each is
    STALE: Mapping[str, str]  # names that older env files carry, with why nothing reads them here
    ELSEWHERE: Mapping[str, str]  # for names of VARIABLES: what to use on another device
    ONLY_VALUES: Mapping[tuple[str, str], str]  # (flag, value) that only this device takes: what to use elsewhere

    @staticmethod
    def detect() -> Detection | None:
        """What this machine has of the device, or None."""

    @staticmethod
    def visible_devices(environ: Mapping[str, str]) -> int | None:
        """How many of it a process with this environment may use; None where that cannot be told."""

    @staticmethod
    def room(situation: Situation) -> int | None:
        """Bytes that weights and KV cache of one worker may take on this machine; None where that cannot be told."""

    @staticmethod
    def cannot_serve(scheme: str) -> tuple[str, str] | None:
        """Why a model quantized so (engine.quantize.schemes) is of no use on it, and what to do instead; else None."""

    @staticmethod
    def problems(situation: Situation) -> list[Problem]:
        """What is wrong with the settings for this device, as far as names and values tell."""

    @staticmethod
    def preflight(situation: Situation) -> list[Problem]:
        """What is wrong on this machine: files, drivers."""

    @staticmethod
    def tune(situation: Situation) -> list[Decision]:
        """What is settled for this device unless a setting says otherwise."""


def names() -> list[str]:
    """Every device that has a module here, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Device:
    """Return the device's module. Raises ModuleNotFoundError for a device that has none."""
    if name not in names():
        raise ModuleNotFoundError(f"no such device: {name!r}")
    return cast(Device, import_module(f"{__name__}.{name}"))


def detect() -> Mapping[str, Detection]:
    """What this machine has, accelerators first."""
    found = {name: load(name).detect() for name in names()}
    present = {name: detection for name, detection in found.items() if detection is not None}
    return dict(sorted(present.items(), key=lambda item: not item[1].accelerator))
