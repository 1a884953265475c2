"""Where an environment with real vLLM is on this machine."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def engine_python() -> Path:
    """The Python that has vLLM: $BERTH_ENGINE_PYTHON, else what `scripts/up` installs. Skips the test without one."""
    given = os.environ.get("BERTH_ENGINE_PYTHON")
    python = Path(given) if given else ROOT / ".berth" / "engine-cpu" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no vLLM here: {python} is missing (scripts/test --all installs it)")
    return python
