"""HTTP over a Unix socket: how the engine is asked where it listens on no port."""

import contextlib
import http.client
import os
import socket
import stat


class UnixConnection(http.client.HTTPConnection):
    """A connection to the socket at a path."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def remove_stale(path: str) -> bool:
    """Remove a socket that nobody listens on, which a killed engine leaves and the next could not bind to."""
    with contextlib.suppress(OSError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as asked:
            try:
                asked.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
                return True
    return False
