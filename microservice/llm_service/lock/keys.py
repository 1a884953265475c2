"""The keys that clients of this service may show: one per line of a file that is read again when it changes.

    name sha256:HEX [max_in_flight=N] [requests_per_minute=N]
    KEY

The first form holds a hash, so that who reads the file learns no key; `berth key` writes it. The second is the key
itself, and goes by the number of its line.
"""

import hashlib
import hmac
import logging
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llm_service.lock.changed import Files

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")

_KEY = re.compile(rb"[\x21-\x7e]+")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_LIMIT = re.compile(r"(max_in_flight|requests_per_minute)=([1-9][0-9]{0,8})")
_FORM = "NAME sha256:HASH [max_in_flight=N] [requests_per_minute=N]"
_log = logging.getLogger("llm_service.keys")


class KeysError(Exception):
    """A file of keys that cannot be used; the text says why, without the keys."""


@dataclass(frozen=True, slots=True)
class Key:
    """One client's key. Only its hash is kept."""

    name: str
    """What logs and metrics call it."""
    digest: bytes
    """SHA-256 of the key. That is enough, since keys are random: what nobody can guess needs no slow hash."""
    max_in_flight: int | None = None
    requests_per_minute: float | None = None
    plain: bool = False
    """Whether the file holds the key itself."""


def shown_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the key that a request shows: a Bearer token, or `X-Api-Key` as Anthropic's clients send it.

    Empty when there is none, when a header comes twice, or when both are there and differ.
    """
    bearer = own = None
    for name, value in headers:
        if name == b"authorization":
            if bearer is not None:
                return b""
            scheme, _, key = value.partition(b" ")
            bearer = key.strip() if scheme.lower() == b"bearer" else b""
        elif name == b"x-api-key":
            if own is not None:
                return b""
            own = value.strip()
    if bearer is None or own is None or bearer == own:
        return bearer or own or b""
    return b""


def digest_of(key: bytes) -> bytes:
    """Return what is kept of a key."""
    return hashlib.sha256(key).digest()


def read_keys(path: Path) -> dict[int, Key]:
    """Return the keys of a file by the number of their line.

    Raises KeysError for a file that cannot be read, has a line that is no key, or holds none.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise KeysError(f"{path} cannot be read: {error.strerror}.") from None
    if keys := parse_keys(text, path):
        return keys
    raise KeysError(f"{path} holds no key.")


def parse_keys(text: bytes, path: Path) -> dict[int, Key]:
    """Return the keys in the text of a file by the number of their line; empty lines and # comments hold none.

    Raises KeysError, which names `path`, for a line that is no key, and for a name or a key that comes twice.
    """
    keys: dict[int, Key] = {}
    names: set[str] = set()
    digests: set[bytes] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        key = _key(line.strip(), number, path)
        if key.name in names or key.digest in digests:
            same = "name" if key.name in names else "key"
            raise KeysError(f"Line {number} of {path} has the same {same} as a line before it.")
        keys[number] = key
        names.add(key.name)
        digests.add(key.digest)
    return keys


def _key(line: bytes, number: int, path: Path) -> Key:
    """Return the key of one line. No message repeats a line: it may be a key in full."""
    words = line.decode("ascii", "replace").split()
    if len(words) == 1:
        if not _KEY.fullmatch(line) or _HASH.fullmatch(words[0]):
            raise KeysError(f"Line {number} of {path} is no key: one has printable characters and no blank.")
        return Key(f"line-{number}", digest_of(line), plain=True)
    hashed = _HASH.fullmatch(words[1])
    limits = [_LIMIT.fullmatch(word) for word in words[2:]]
    given = {found[1]: int(found[2]) for found in limits if found}
    if not hashed or not NAME.fullmatch(words[0]) or len(given) != len(limits):
        raise KeysError(f"Line {number} of {path} is neither a key, which has no blank in it, nor {_FORM}.")
    return Key(words[0], bytes.fromhex(hashed[1]), given.get("max_in_flight"), given.get("requests_per_minute"))


class Keys:
    """The keys that count now. Only their hashes are kept."""

    def __init__(self, path: Path) -> None:
        """Read the file; raise KeysError when it cannot be used."""
        self._path = path
        self._file = Files(path)
        self._keys = list(read_keys(path).values())
        self._warn_of_readers()

    def find(self, shown: bytes) -> Key | None:
        """Return the key that was shown, if it is one of them.

        How long this takes tells nothing about which, or how near: every hash is compared, each to its last byte.
        """
        if self._file.changed():
            self._read_again()
        if not shown:
            return None
        offered = digest_of(shown)
        found = None
        for key in self._keys:
            if hmac.compare_digest(offered, key.digest):
                found = key
        return found

    def _read_again(self) -> None:
        """Read the file. One that went bad changes nothing: clients keep the keys they have."""
        try:
            self._keys = list(read_keys(self._path).values())
        except KeysError as error:
            _log.warning("%s The keys read before it changed still count.", error)
            return
        _log.info("keys read again", extra={"fields": {"keys": len(self._keys)}})
        self._warn_of_readers()

    def _warn_of_readers(self) -> None:
        if not any(key.plain for key in self._keys):
            return
        try:
            mode = self._path.stat().st_mode
        except OSError:  # gone since it was read
            return
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            _log.warning(
                "%s can be read by other users of this machine, and holds keys in full; "
                "chmod 600 it, or let `berth key add` keep hashes.",
                self._path,
            )
