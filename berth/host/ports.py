"""Whether a TCP port is free, and who holds it if not."""

import errno
import os
import pwd
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"  # the state column of /proc/net/tcp


@dataclass(frozen=True)
class Listener:
    """A process that listens on a port; `pid` is None where this user may not know it."""

    pid: int | None
    name: str


def is_free(address: str, port: int) -> bool:
    """Whether a server could listen on this address and port now. Raises OSError for an address that is not ours."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def holder(port: int, proc: Path = Path("/proc")) -> Listener | None:
    """Who listens on `port`, from /proc: the program's command line, or at least the user it belongs to."""
    inodes: dict[str, int] = {}
    for table in ("tcp", "tcp6"):
        inodes.update(_listening(proc / "net" / table, port))
    if not inodes:
        return None
    for pid in _pids(proc):
        if _sockets(proc / str(pid)) & inodes.keys():
            return Listener(pid, _name(proc / str(pid)))
    return Listener(None, f"a process of user {_user(next(iter(inodes.values())))}")


def _listening(table: Path, port: int) -> dict[str, int]:
    """Inode and user id of every socket in `table` that listens on `port`."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return {}
    return {
        row[9]: int(row[7])
        for row in rows
        if len(row) > 9 and row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port
    }


def _pids(proc: Path) -> Iterator[int]:
    return (int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())


def _sockets(process: Path) -> set[str]:
    found = set()
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return set()
    for descriptor in descriptors:
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[len("socket:[") : -1])
    return found


def _name(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        return " ".join(words).strip()[:80] or (process / "comm").read_text().strip()
    except OSError:
        return "a process that has just ended"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
