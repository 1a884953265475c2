"""Lets others know what a starting engine does: each of vLLM's processes writes the phase that it prints into one file.

vLLM opens its port only once a model is loaded, so nobody can ask it before. Its own setting VLLM_LOGGING_STREAM makes
every process import this module: what goes to standard output and error goes there as ever, and is read on the way.
The launcher locks the file and vLLM, which takes its place, keeps that lock: it goes with the engine, however that
ends, so nothing stale passes for an engine that loads.
"""

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TextIO

from engine import names
from engine.decisions import Decision
from engine.growing import split
from engine.messages import say
from engine.phases import READY, STARTING, Phase, phase_of
from engine.values import FALSE_WORDS

STREAM = "VLLM_LOGGING_STREAM"
STDOUT = "ext://engine.announce.stdout"
SIZE = 512  # bytes of the file, always: one write replaces it all
# What else decides where vLLM's lines go.
_CONFIG, _CONFIGURE = "VLLM_LOGGING_CONFIG_PATH", "VLLM_CONFIGURE_LOGGING"
_SERVING = "Application startup complete"


def settle(environ: Mapping[str, str]) -> list[Decision]:
    """What makes vLLM's processes tell their phases, where the environment names a file for them."""
    path = environ.get(names.PHASE_FILE)
    own = any(environ.get(name) for name in (STREAM, _CONFIG)) or environ.get(_CONFIGURE, "1").lower() in FALSE_WORDS
    if not path or own:
        return []
    return [Decision(f"{STREAM}={STDOUT}", f"what the start does is told in {path}", {STREAM: STDOUT})]


def begin(environ: Mapping[str, str]) -> None:
    """Make and lock the file. Whatever takes this process's place holds the lock until it ends.

    Without a file that can be written and locked an engine starts all the same.
    """
    path = environ.get(names.PHASE_FILE)
    if not path:
        return
    try:
        # The service, and the engine's next start, may run as other users; it holds no more than a phase.
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
        with contextlib.suppress(PermissionError):
            os.fchmod(file, 0o664)
        with contextlib.suppress(BlockingIOError):  # a process of the last engine, about to end
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(file, True)
        _write(file, Phase(STARTING))
    except OSError as error:
        say(f"{path} cannot be written, so nobody is told what the start does ({error.strerror})")


def _write(file: int, phase: Phase) -> None:
    os.pwrite(file, json.dumps({"phase": asdict(phase)}).encode().ljust(SIZE)[:SIZE], 0)


class Listener:
    """Reads the lines that go to one stream, and writes down each phase that one announces."""

    def __init__(self, path: str, stream: TextIO) -> None:
        """Hear what is written to a stream from now on. The stream stays what it is."""
        self._path = path
        self._phase: Phase | None = None
        self._rest = ""
        self._write = stream.write
        stream.write = self._heard  # type: ignore[method-assign]

    def _heard(self, text: str) -> int:
        written = self._write(text)
        # Lines that come later are about requests. Of all that may fail here nothing may stop an engine.
        if self._phase != Phase(READY):
            with contextlib.suppress(Exception):
                self._hear(text)
        return written

    def _hear(self, text: str) -> None:
        said = self._rest + text
        # A line may come in parts, and a progress bar's ends where the next one begins.
        cut = max(said.rfind("\n"), said.rfind("\r")) + 1
        self._rest = said[cut:][-SIZE:]
        for line in split(said[:cut]):
            phase = Phase(READY) if _SERVING in line else phase_of(line)
            if phase is not None and phase != self._phase:
                self._phase = phase
                with open(self._path, "r+b") as file:
                    _write(file.fileno(), phase)


stdout = sys.stdout
"""Where VLLM_LOGGING_STREAM points: standard output, whose lines are heard."""

if (_path := os.environ.get(names.PHASE_FILE)) and os.environ.get(STREAM) == STDOUT:
    for _stream in (sys.stdout, sys.stderr):
        Listener(_path, _stream)
