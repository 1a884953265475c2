"""A result as it is kept: what was measured, of what, with what, and vLLM's own figures."""

import json
import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from berth import __version__
from berth.errors import Exit, failed
from berth.paths import STATE, shown
from engine.bench import SERVE, STARTUP

SCHEMA = 1
PLACE = STATE / "bench"


@dataclass(frozen=True)
class Record:
    """One benchmark. `load` is what was asked for, `figures` vLLM's own result, in vLLM's own names and units."""

    kind: str
    part: str
    made: str
    deployment: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, Any]
    load: dict[str, Any]
    figures: dict[str, Any]

    @property
    def label(self) -> str:
        """A few words that tell it from others."""
        runtime = self.deployment.get("runtime") or self.deployment.get("url") or ""
        parts = (self.deployment.get("model", ""), self.deployment.get("device", ""), runtime, self.part)
        return " ".join(str(part) for part in parts if part)

    def facts(self) -> dict[str, Any]:
        """What is written down."""
        return {"schema": SCHEMA, **self.__dict__}

    def write(self, output: Path | None) -> Path:
        """Keep it at `output`, else among this checkout's results under a name of its own. Raises BerthError."""
        path = output or PLACE / f"{re.sub(r'[^0-9A-Za-z.]+', '-', f'{self.made} {self.kind} {self.label}')}.json"
        unfinished = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(self.facts(), indent=1) + "\n", encoding="utf-8")
            os.replace(unfinished, path)
        except OSError as error:
            raise failed(f"{shown(path)} cannot be written: {error.strerror}", "name another file: --output") from error
        return path


def new(kind: str, part: str, deployment: dict[str, Any], versions: dict[str, str], load: Any, figures: Any) -> Record:
    """A record of now and of this machine."""
    made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Record(kind, part, made, deployment, {"berth": __version__, **versions}, _machine(), load, figures)


def read(path: Path) -> Record:
    """A record from a file. Raises BerthError (exit code 2) for what is none."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise failed(
            f"{path} cannot be read: {error.strerror}", "name a result of `berth bench`", Exit.BAD_SETTING
        ) from error
    except (ValueError, RecursionError):
        said = None
    fields: dict[str, type] = {
        **dict.fromkeys(("kind", "part", "made"), str),
        **dict.fromkeys(("deployment", "versions", "machine", "load", "figures"), dict),
    }
    sound = isinstance(said, dict) and all(isinstance(said.get(name), kind) for name, kind in fields.items())
    if not sound or said.get("schema") != SCHEMA or said["kind"] not in (SERVE, STARTUP):
        raise failed(f"{path} is no result of `berth bench`", f"results are in {shown(PLACE)}", Exit.BAD_SETTING)
    return Record(**{name: said[name] for name in fields})


def _machine() -> dict[str, Any]:
    """The processor and the memory of the machine that ran the client; the engine may have been elsewhere."""
    try:
        model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        model, memory = None, None
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": model[1] if model else platform.processor(), "cpus": cpus, "memory_bytes": memory}
