"""Writes down, again and again, what the engine is doing: its phase while it starts, then its models and its load.

`python -P -m engine.watch --log FILE --socket PATH --out FILE [--key-file FILE] [--interval SECONDS]`
Nothing that it watches need be there. It ends on SIGTERM, and with the process that started it.
"""

import argparse
import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine import prometheus
from engine.growing import Growing
from engine.messages import say
from engine.phases import READY, STARTING, Phase, phase_of
from engine.unix_http import UnixConnection

INTERVAL_S = 2.0
# While it loads, vLLM accepts connections and answers none; once it serves, it answers also under load.
STARTING_TIMEOUT_S, SERVING_TIMEOUT_S = 1.0, 5.0
_LARGEST = 16 << 20  # bytes of an answer; more comes from no engine


class Watch:
    """One engine: the log that it writes, the socket that it answers on."""

    def __init__(
        self, log: Path, socket: str, key_file: Path | None = None, before: Mapping[str, Any] | None = None
    ) -> None:
        self._log, self._socket, self._key_file = Growing(log), socket, key_file
        self._phase = Phase(STARTING)
        self._ready = False
        self._load = prometheus.Load(before)

    def look(self) -> dict[str, Any]:
        """What watch.json holds, as of now. Tokens are counted on when the engine is started anew."""
        for line in self._log.lines():
            self._phase = phase_of(line) or self._phase
        models = self._models()
        self._ready = bool(models)
        metrics = self._get("/metrics") if self._ready else None
        load = self._load.update(metrics.decode(errors="replace") if metrics else "", time.monotonic())
        phase = Phase(READY) if self._ready else self._phase
        if phase.fraction is not None:
            phase = replace(phase, fraction=round(phase.fraction, 3))
        return {"phase": asdict(phase), "ready": self._ready, "models": models, **load, "at": int(time.time())}

    def _models(self) -> list[str]:
        """The names that are served; none before `/health` is good."""
        if self._get("/health") is None:
            return []
        try:
            return [str(entry["id"]) for entry in json.loads(self._get("/v1/models") or b"null")["data"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return []

    def _get(self, path: str) -> bytes | None:
        """The body of a good answer, else None."""
        timeout = SERVING_TIMEOUT_S if self._ready else STARTING_TIMEOUT_S
        connection = UnixConnection(self._socket, timeout)
        try:
            connection.request("GET", path, headers=self._headers())
            reply = connection.getresponse()
            return reply.read(_LARGEST) if reply.status == http.client.OK else None
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        try:
            key = self._key_file.read_text(encoding="utf-8").strip() if self._key_file else ""
        except (OSError, ValueError):
            key = ""
        return {"Authorization": f"Bearer {key}"} if key else {}


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file at once, readable by its owner alone. Raises OSError."""
    unfinished = path.with_name(f".{path.name}.new")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.write("\n")
    os.replace(unfinished, path)


def read(path: Path) -> dict[str, Any]:
    """What was written before; nothing where that is missing or no JSON object."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def main() -> int:
    """Watch until SIGTERM, or until the process that started this one has ended."""
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options = _options()
    watch = Watch(options.log, options.socket, options.key_file, read(options.out))
    failing = False
    while os.getppid() == parent:
        try:
            write(options.out, watch.look())
            failing = False
        except OSError as error:  # a full disk is told once, and may be emptied
            if not failing:
                say(f"{options.out} cannot be written ({error.strerror})")
            failing = True
        time.sleep(options.interval)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engine.watch", description=__doc__)
    parser.add_argument("--log", type=Path, required=True, help="the engine's log, for phases")
    parser.add_argument("--socket", required=True, help="the Unix socket that the engine answers on")
    parser.add_argument("--key-file", type=Path, help="a file with the key that the engine asks for")
    parser.add_argument("--out", type=Path, required=True, help="the file to replace with what was seen")
    parser.add_argument("--interval", type=float, default=INTERVAL_S, help="seconds between two looks")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
