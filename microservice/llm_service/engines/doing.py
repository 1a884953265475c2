"""What a starting engine says it does: in a file that its processes write, and that is locked while they live.

vLLM opens its port only once its model is loaded, so until then this is all that can be known of it.
"""

import fcntl
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

_LARGEST = 4096  # bytes of the file
BEGINNING = "starting vLLM"
READY = "ready"


@dataclass(frozen=True, slots=True)
class Doing:
    """One phase of a start: its name, how much of it is done (0 to 1), and a few words, where these are known."""

    name: str
    fraction: float | None = None
    detail: str = ""

    def words(self) -> str:
        """Return the phase in words, such as `loading weights (25 %, 1/4 files)`."""
        share = "" if self.fraction is None else f"{self.fraction:.0%}".replace("%", " %")
        known = ", ".join(word for word in (share, self.detail) if word)
        return f"{self.name} ({known})" if known else self.name

    def public(self) -> dict[str, Any]:
        """Return it for /ready."""
        return asdict(self)


def parsed(said: object) -> Doing | None:
    """Return what the `phase` of a file says; None when that is no phase, or one that says no more than others do."""
    if not isinstance(said, dict) or not isinstance(name := said.get("name"), str) or name in ("", READY):
        return None
    fraction, detail = said.get("fraction"), said.get("detail")
    return Doing(
        name,
        min(1.0, max(0.0, float(fraction))) if isinstance(fraction, int | float) else None,
        detail if isinstance(detail, str) else "",
    )


@dataclass(frozen=True, slots=True)
class Told:
    """What a file says: whether the engine that wrote it lives, and what it does."""

    alive: bool
    doing: Doing | None


def read(path: Path) -> Told | None:
    """Return what an engine's file says; None when there is none yet, or it cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        file = os.open(path, os.O_RDONLY)
        try:
            return Told(_locked(file), parsed(orjson.loads(os.read(file, _LARGEST))["phase"]))
        finally:
            os.close(file)
    return None


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
