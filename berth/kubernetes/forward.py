"""`kubectl port-forward`: the service of a cluster on a port of this machine, for as long as this process holds it."""

import contextlib
import shlex
import subprocess
import threading
from collections.abc import Callable
from typing import IO

from berth.errors import failed
from berth.kubernetes import kubectl
from berth.runtimes import SERVICE

PORT = 9000  # of the Service
END_S, PAUSE_S = 5.0, 1.0


def command(port: int) -> list[str]:
    """The command line for a port of this machine."""
    return kubectl.words("port-forward", f"service/{SERVICE}", f"{port}:{PORT}")


class Forward:
    """An open port of this machine. It ends with the pod behind it, so `stay` opens it again."""

    def __init__(self, port: int) -> None:
        """Open it. Raises BerthError where the port is taken, or where the cluster gives no way in."""
        self._port = port
        self._readers: list[threading.Thread] = []
        self._process = self._opened()

    def _opened(self) -> "subprocess.Popen[str]":
        words = command(self._port)
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout
        assert process.stderr
        # The first line comes when it listens; no line, and it has ended.
        if not process.stdout.readline():
            said = process.communicate()[1]
            raise failed(f"no way to the service: {kubectl.reason(said)}", f"try it yourself: {shlex.join(words)}")
        streams = (process.stdout, process.stderr)
        self._readers = [threading.Thread(target=_drain, args=(stream,), daemon=True) for stream in streams]
        for reader in self._readers:
            reader.start()
        return process

    def stay(self, ended: Callable[[], bool]) -> None:
        """Keep it open until `ended` says so; opened anew whenever the pod behind it goes."""
        pause = threading.Event()
        while not ended():
            if self._process.poll() is not None:
                with contextlib.suppress(Exception):  # while no pod is there
                    self._process = self._opened()
            pause.wait(PAUSE_S)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(END_S)


def _drain(stream: IO[str]) -> None:
    """Read on, so that kubectl can write on; close it at its end."""
    with stream:
        for _ in stream:
            pass
