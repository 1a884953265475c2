"""Files about engines, as the jobs that run them write them."""

import json
import time
from pathlib import Path
from typing import Any

from tests.support.stub_engine import StubEngine


class Deployment:
    """A directory of runs, each with its endpoint.json, replaced atomically."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def say(self, run: str, engine: StubEngine | str | None, state: str = "ready", **fields: Any) -> Path:
        """Write what a run says of itself."""
        url = engine.url if isinstance(engine, StubEngine) else engine
        said = {"schema": 1, "run": run, "state": state, "base_url": url, "heartbeat": time.time(), **fields}
        path = self.directory / run / "endpoint.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".new").write_text(json.dumps(said))
        return path.with_suffix(".new").replace(path)
