"""How ssh is told to reach the login node: one connection for all verbs, no question, dead ones noticed."""

import os
import subprocess
import tempfile
from pathlib import Path

from berth.errors import failed

CONNECT_S = 15
KEEP_S = 600  # how long a connection is kept for the next verb


def options(destination: str) -> list[str]:
    """Options of every ssh to the login node.

    Where the user's own configuration shares connections to it, that one is used: a second factor needs it.
    """
    sharing = ["-o", "ControlMaster=auto", "-o", f"ControlPath={_sockets()}/%C", "-o", f"ControlPersist={KEEP_S}"]
    return [
        *("-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}"),
        *([] if shares(destination) else sharing),
        *("-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"),
    ]


def shares(destination: str) -> bool:
    """Whether the user's own ssh configuration shares connections to this host."""
    try:
        done = subprocess.run(["ssh", "-G", destination], capture_output=True, text=True, timeout=CONNECT_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return any(line.startswith("controlpath ") and line != "controlpath none" for line in done.stdout.splitlines())


def _sockets() -> Path:
    """A directory of this user's own, with a short name: a socket's path holds 107 characters at most."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    place = Path(base, f"berth-{os.getuid()}")
    place.mkdir(mode=0o700, exist_ok=True)
    if place.stat().st_uid != os.getuid() or place.is_symlink():
        raise failed(f"{place} belongs to somebody else", "set XDG_RUNTIME_DIR to a directory of yours")
    return place
