"""CPU: any x86-64 or ARM machine."""

from collections.abc import Mapping

from engine.decisions import Decision, Situation
from engine.devices import Detection
from engine.messages import Problem

VARIABLES: Mapping[str, str] = {}
STALE: Mapping[str, str] = {
    "PT_HPU_LAZY_ACC_PAR_MODE": "it was read by Gaudi's software of 2024; nothing reads it now",
}
ELSEWHERE: Mapping[str, str] = {}
ONLY_VALUES: Mapping[tuple[str, str], str] = {}

# An AOT-compiled artefact never loads again on CPU (vLLM 0.32.0): each start compiled anew. Inductor's own cache does.
_CONSTANTS = {"VLLM_USE_AOT_COMPILE": ("0", "vLLM 0.32 cannot load such code again on CPU; Inductor's cache it can")}


def detect() -> Detection | None:
    """Every machine has a CPU."""
    return Detection(1, "every machine has one", accelerator=False)


def visible_devices(environ: Mapping[str, str]) -> int | None:
    """Tensor parallel ranks on CPU are processes; how many a machine carries is no count of devices."""
    return None


def problems(situation: Situation) -> list[Problem]:
    """Nothing is refused for the CPU's sake."""
    return []


def preflight(situation: Situation) -> list[Problem]:
    """The CPU needs no driver."""
    return []


def tune(situation: Situation) -> list[Decision]:
    """Threads, memory and compiled code as suits a CPU."""
    return [
        Decision(f"{name}={value}", why, {name: value})
        for name, (value, why) in _CONSTANTS.items()
        if name not in situation.environ
    ]
