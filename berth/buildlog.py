"""Follows an image build through the lines of JSON that `docker buildx build --progress rawjson` writes."""

import base64
import binascii
import json
import re
from typing import Any

NAME_LENGTH = 60


class BuildLog:
    """How far a build is, what it does, and why it failed."""

    def __init__(self) -> None:
        self.step = ""
        self.error = ""
        self._step_failed = False
        self._done: dict[str, bool] = {}
        self._names: dict[str, str] = {}
        self._new: list[str] = []
        self._last_output: dict[str, str] = {}

    @property
    def fraction(self) -> float | None:
        """The part of the known steps that has ended; Buildx announces all steps of a stage early on."""
        return sum(self._done.values()) / len(self._done) if self._done else None

    def feed(self, line: str) -> None:
        """Take in one line; text that is no JSON is Buildx's own complaint."""
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            self._new.append(line.rstrip())
            if line.strip() and not self._step_failed:
                self.error = line.strip().removeprefix("ERROR: ")
            return
        for vertex in event.get("vertexes") or ():
            self._vertex(vertex)
        for log in event.get("logs") or ():
            self._log(log)

    def new_lines(self) -> list[str]:
        """Readable lines since the last call."""
        lines, self._new = self._new, []
        return lines

    def _vertex(self, vertex: dict[str, Any]) -> None:
        digest, name = vertex["digest"], _short(vertex.get("name", ""))
        if digest not in self._names:
            self._new.append(f"== {name}")
        self._names[digest] = name
        self._done[digest] = bool(vertex.get("completed"))
        if not vertex.get("completed"):
            self.step = name
        if why := vertex.get("error"):
            self._step_failed = True
            said = self._last_output.get(digest)
            self.error = f"{name}: {said or why}"
            self._new.append(f"!! {self.error}")

    def _log(self, log: dict[str, Any]) -> None:
        try:
            text = base64.b64decode(log.get("data", "")).decode(errors="replace")
        except (binascii.Error, ValueError):
            return
        lines = [line for line in text.splitlines() if line.strip()]
        self._new += lines
        if lines:
            self._last_output[log["vertex"]] = lines[-1]


def _short(name: str) -> str:
    """A step's name on one line: a RUN with mounts is a paragraph."""
    line = " ".join(re.sub(r"--mount=\S+", "", name).split())
    return line if len(line) <= NAME_LENGTH else f"{line[: NAME_LENGTH - 1]}…"
