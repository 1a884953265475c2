"""Log lines on standard output: JSON where a machine reads them, plain on a terminal."""

import logging
import sys
import time
from functools import lru_cache
from typing import TextIO

import orjson


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON; `fields` given as extra stand at the top level."""
        line = _stamped(record.created, record.levelname.lower(), record.name, record.getMessage())
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class Batch:
    """Lines of one logger that are written together.

    A record's way through `logging`, and a write of its own, would cost a small request more than its relaying may.
    """

    def __init__(self, logger: str, out: TextIO) -> None:
        self._logger = logger
        self._out = out
        self._waiting: list[str] = []

    def add(self, at: float, message: str, fields: dict[str, object]) -> None:
        """Take a line, and when what it tells of happened, in seconds since 1970."""
        line = _stamped(at, "info", self._logger, message)
        line |= fields
        self._waiting.append(orjson.dumps(line, default=str).decode())

    def flush(self) -> None:
        """Write what is there."""
        if self._waiting:
            self._out.write("\n".join([*self._waiting, ""]))
            self._waiting.clear()
            self._out.flush()


def _stamped(at: float, level: str, logger: str, message: str) -> dict[str, object]:
    second = int(at)
    when = f"{_second(second)}.{int((at - second) * 1000):03d}Z"
    return {"time": when, "level": level, "logger": logger, "message": message}


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


class PlainLines(logging.Formatter):
    """A short line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, message and the fields as name=value."""
        fields = getattr(record, "fields", {})
        words = [self.formatTime(record, "%H:%M:%S"), record.levelname.lower(), record.getMessage()]
        words += [f"{name}={value}" for name, value in fields.items()]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure() -> Batch | None:
    """Send every log line of the process to standard output; return what takes requests' lines, if a machine reads."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(PlainLines() if sys.stdout.isatty() else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # Its lines repeat ours, but for errors.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    for noisy in ("httpx", "openai", "langchain"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return None if sys.stdout.isatty() else Batch("llm_service.access", sys.stdout)
