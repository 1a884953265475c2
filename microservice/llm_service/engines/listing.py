"""Engines that come and go: a directory in which each job keeps a file about its own engine.

`DIR/*/endpoint.json` and `DIR/*.json` are read. A job replaces its file every few seconds, so an old heartbeat means
that the job is gone, whatever its state says. The directory must belong to whoever runs this service: it says where
requests go, and which key goes with them.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from llm_service.engines.address import Address, normalized
from llm_service.engines.doing import Doing
from llm_service.engines.doing import parsed as parsed_doing

FRESH_SECONDS = 90.0  # a heartbeat comes every 5 s; shared file systems show it late, and clocks differ a little
_LARGEST_FILE = 2**20  # bytes
_ALIVE = ("starting", "ready", "draining")


@dataclass(frozen=True, slots=True)
class Entry:
    """What one file says."""

    state: str
    url: str | None
    heartbeat: float
    model: str | None
    key_file: str | None
    reason: str
    doing: Doing | None
    """What a starting engine does."""

    @property
    def alive(self) -> bool:
        """Whether its job still runs."""
        return self.state in _ALIVE and abs(time.time() - self.heartbeat) < FRESH_SECONDS


class Listing:
    """The files of one directory, read again by each `read`, which may run in a thread of its own."""

    def __init__(self, directory: Path, key: str | None) -> None:
        self._directory = directory
        self._key = key
        self._entries: dict[Path, Entry] = {}
        self._changed: dict[Path, int] = {}

    def read(self) -> dict[Address, str | None]:
        """Return the engines that take new requests, each with the name of its model, if its file says one."""
        self._look()
        # Two jobs may have had the same port, one after the other: the last one that was heard of has it now.
        newest: dict[str, Entry] = {}
        for entry in sorted(self._entries.values(), key=lambda entry: entry.heartbeat):
            if entry.url is not None:
                newest[entry.url] = entry
        ready = [(url, entry) for url, entry in newest.items() if entry.state == "ready" and entry.alive]
        return {Address(url, _key(entry.key_file) or self._key): entry.model for url, entry in ready}

    def doing(self) -> Doing | None:
        """Return what an engine's start does, when it is the only one that has been heard of."""
        alive = [entry for entry in self._entries.values() if entry.alive]
        return alive[0].doing if len(alive) == 1 and alive[0].state == "starting" else None

    def verdict(self) -> tuple[str, str]:
        """Return the state of the engines as a whole when none is ready, and a sentence about it."""
        alive = [entry for entry in self._entries.values() if entry.alive and entry.state != "ready"]
        if alive:
            words = ", ".join(sorted(f"one is {_words(entry)}" for entry in alive))
            state = "starting" if any(entry.state == "starting" for entry in alive) else "draining"
            return state, f"No engine is ready: {words}."
        last = max(self._entries.values(), key=lambda entry: entry.heartbeat, default=None)
        if last is None:
            return "starting", "No engine is ready: none has begun to start."
        if last.state == "failed":
            return "failed", f"The engine has failed: {last.reason.rstrip('.') or 'its job does not say why'}."
        if last.state in _ALIVE:
            return "unreachable", f"No engine is ready: the last one was not heard of for {FRESH_SECONDS:g} s."
        return "starting", f"No engine is ready: the last one is {last.state}{_in_brackets(last.reason)}."

    def _look(self) -> None:
        try:
            found = [*self._directory.glob("*/endpoint.json"), *self._directory.glob("*.json")]
        except OSError:
            return  # a file system that is away for a moment; what it said last ages by its heartbeats
        entries = {path: self._entry(path) for path in found}
        self._entries = {path: entry for path, entry in entries.items() if entry is not None}

    def _entry(self, path: Path) -> Entry | None:
        known = self._entries.get(path)
        try:
            changed = path.stat().st_mtime_ns
            if known is not None and known.state not in _ALIVE and self._changed.get(path) == changed:
                return known  # its job has ended: no need to read it every time
            with path.open("rb") as file:
                entry = parsed(file.read(_LARGEST_FILE))
        except FileNotFoundError:
            return None
        except OSError:
            return known
        self._changed[path] = changed
        return entry or known  # a torn file says what it said before


def parsed(text: bytes) -> Entry | None:
    """Return what a file says; None when it is torn or about something else."""
    try:
        said = orjson.loads(text)
        url = said["base_url"]
        watch = said.get("watch") or {}
        return Entry(
            state=str(said["state"]),
            url=normalized(url) if url else None,
            heartbeat=float(said["heartbeat"]),
            model=said.get("model") or None,
            key_file=said.get("key_file") or None,
            reason=str(said.get("reason") or ""),
            doing=parsed_doing(dict(watch.get("phase") or {})),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _key(path: str | None) -> str | None:
    try:
        key = Path(path).read_text(encoding="ascii").strip() if path else ""
    except (OSError, ValueError):
        return None
    return key if key.isprintable() and " " not in key and key else None


def _words(entry: Entry) -> str:
    return entry.doing.words() if entry.doing and entry.state == "starting" else entry.state


def _in_brackets(words: str | None) -> str:
    return f" ({words.rstrip('.')})" if words else ""
