"""The Docker Engine of this machine, reachable for a while through a socket in a directory that the cluster sees."""

import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class _Relay(socketserver.BaseRequestHandler):
    """One connection, copied both ways until both sides are done."""

    request: socket.socket

    def handle(self) -> None:
        engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
        with socket.socket(socket.AF_UNIX) as upstream:
            upstream.connect(engine)
            back = threading.Thread(target=_copy, args=(upstream, self.request))
            back.start()
            _copy(self.request, upstream)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def relayed(path: Path) -> Iterator[None]:
    """Relay connections to `path`, which every user may open, to the engine's own socket."""
    with socketserver.ThreadingUnixStreamServer(str(path), _Relay) as server:
        path.chmod(0o666)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            path.unlink()
