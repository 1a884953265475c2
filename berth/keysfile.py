"""The file of the service's keys, as `berth key` edits it: in place, since a container has this very file mounted."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from berth import deployment
from berth.errors import Exit, failed
from llm_service.lock.keys import NAME, Key, KeysError, digest_of, parse_keys, read_keys

SETTING = "LLM_API_KEYS_FILE"


def find(given: Path | None) -> Path:
    """The file: the one given, else the one that the shell or an env file names. Raises BerthError (exit code 2)."""
    if given:
        return given.absolute()
    named = deployment.resolve().value(SETTING)
    if not named:
        raise failed(
            f"no file of keys is named: {SETTING} is not set",
            f"set {SETTING} to an absolute path in env/local.env, or give --file",
            Exit.BAD_SETTING,
        )
    return Path(named).absolute()


def add(file: Path, name: str, max_in_flight: int | None = None, requests_per_minute: int | None = None) -> str:
    """Make a key, append its hash to the file, and return the key: it stands nowhere else.

    Raises BerthError: exit code 2 for a name that is none or is taken, and for a file that is not one of keys; 1 where
    it cannot be written.
    """
    if not NAME.fullmatch(name):
        raise failed(
            f"{name}: not a name for a key",
            "up to 64 letters, digits, _, ., @ or -; a letter or a digit first",
            Exit.BAD_SETTING,
        )
    key = f"berth-{secrets.token_urlsafe(32)}"
    words = [name, f"sha256:{digest_of(key.encode()).hex()}"]
    words += [f"max_in_flight={max_in_flight}"] if max_in_flight else []
    words += [f"requests_per_minute={requests_per_minute}"] if requests_per_minute else []
    with _opened(file, os.O_RDWR | os.O_CREAT) as descriptor:
        before = file.read_bytes()
        with _told():
            taken = [known.name for known in parse_keys(before, file).values()]
        if name in taken:
            raise failed(f"{file} has a key of the name {name}", "choose another name", Exit.BAD_SETTING)
        joint = b"\n" if before and not before.endswith(b"\n") else b""
        # One write at the end: whoever reads meanwhile sees the file before it or after it.
        os.pwrite(descriptor, joint + " ".join(words).encode() + b"\n", len(before))
    return key


def listed(file: Path) -> list[Key]:
    """The keys of the file. Raises BerthError (exit code 2) where it is not one of keys."""
    with _told():
        return list(read_keys(file).values())


def remove(file: Path, name: str) -> None:
    """Delete the line of a key.

    Raises BerthError (exit code 2) where there is no such key, and for the last one: a service that is given an empty
    file goes on with the keys that it has, so that a file that is being written locks nobody out.
    """
    with _opened(file, os.O_RDWR) as descriptor:
        with _told():
            keys = read_keys(file)
        numbers = [number for number, key in keys.items() if key.name == name]
        if not numbers:
            raise failed(f"{file} has no key of the name {name}", "scripts/berth key list", Exit.BAD_SETTING)
        if len(keys) == 1:
            raise failed(
                f"{name} is the last key of {file}, and a service keeps its keys when it finds none",
                "add another key first; or stop the service: scripts/berth down",
                Exit.BAD_SETTING,
            )
        lines = file.read_bytes().splitlines(keepends=True)
        left = b"".join(line for number, line in enumerate(lines, 1) if number != numbers[0])
        os.pwrite(descriptor, left, 0)
        os.ftruncate(descriptor, len(left))


@contextmanager
def _told() -> Iterator[None]:
    """Tell of a file that is not one of keys as every verb tells of what is wrong."""
    try:
        yield
    except KeysError as error:
        raise failed(str(error).rstrip("."), "docs/service.md says what a line holds", Exit.BAD_SETTING) from error


@contextmanager
def _opened(file: Path, flags: int) -> Iterator[int]:
    """Open the file for one editor at a time. A new one may be read by everybody, hashes being no secret."""
    try:
        descriptor = os.open(file, flags, 0o644)
    except FileNotFoundError:
        missing = file if file.parent.is_dir() else file.parent
        raise failed(f"{missing} is not there", "scripts/berth key add NAME makes the file", Exit.BAD_SETTING) from None
    except OSError as error:
        raise failed(f"{file} cannot be written: {error.strerror}", "check its permissions", Exit.FAILED) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
