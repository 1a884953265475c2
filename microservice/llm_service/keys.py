"""The keys that clients of this service may show: one per line of a file that is read again when it changes."""

import hashlib
import hmac
import logging
import os
import re
import stat
import time
from pathlib import Path

LOOK_SECONDS = 1.0  # a changed file counts after at most this long

_KEY = re.compile(rb"[\x21-\x7e]+")
_log = logging.getLogger("llm_service.keys")


class KeysError(Exception):
    """A file of keys that cannot be used; the text says why, without the keys."""


def read_keys(path: Path) -> list[bytes]:
    """Return the keys of a file: one a line, empty lines and lines that begin with # left out. Raises KeysError."""
    try:
        lines = [line.strip() for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise KeysError(f"{path} cannot be read: {error.strerror}.") from None
    for number, line in enumerate(lines, 1):
        if line and not line.startswith(b"#") and not _KEY.fullmatch(line):
            raise KeysError(f"Line {number} of {path} is no key: one has printable characters and no blank.")
    keys = [line for line in lines if line and not line.startswith(b"#")]
    if not keys:
        raise KeysError(f"{path} holds no key.")
    return keys


class Keys:
    """The keys that count now. Only their hashes are kept."""

    def __init__(self, path: Path) -> None:
        """Read the file; raise KeysError when it cannot be used."""
        self._path = path
        self._seen = self._mark()
        self._hashes = [_hashed(key) for key in read_keys(path)]
        self._looked_at = time.monotonic()
        self._warn_of_readers()

    def allow(self, shown: bytes) -> bool:
        """Say whether a key is one of them. How long this takes tells nothing about which, or how near."""
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._look()
        offered = _hashed(shown)
        known = False
        for one in self._hashes:
            known |= hmac.compare_digest(offered, one)
        return known

    def _look(self) -> None:
        """Read the file again if it changed. One that went bad changes nothing: clients keep the keys they have."""
        self._looked_at = time.monotonic()
        mark = self._mark()
        if mark == self._seen:
            return
        self._seen = mark
        try:
            self._hashes = [_hashed(key) for key in read_keys(self._path)]
        except KeysError as error:
            _log.warning("%s The keys read before it changed still count.", error)
            return
        _log.info("keys read again", extra={"fields": {"keys": len(self._hashes)}})
        self._warn_of_readers()

    def _mark(self) -> tuple[int, ...] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _warn_of_readers(self) -> None:
        if self._path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            _log.warning("%s can be read by other users of this machine; chmod 600 it.", self._path)


def _hashed(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
