"""Log lines on standard output: JSON where a machine reads them, plain on a terminal."""

import logging
import sys
import time

import orjson


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON; `fields` given as extra stand at the top level."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class PlainLines(logging.Formatter):
    """A short line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, message and the fields as name=value."""
        fields = getattr(record, "fields", {})
        words = [self.formatTime(record, "%H:%M:%S"), record.levelname.lower(), record.getMessage()]
        words += [f"{name}={value}" for name, value in fields.items()]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure() -> None:
    """Send every log line of the process to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(PlainLines() if sys.stdout.isatty() else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # Its lines repeat ours, but for errors.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    for noisy in ("httpx", "openai", "langchain"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
