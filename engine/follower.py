"""Runs `vllm serve --headless` on the nodes after the first, and ends it when there is nothing left to follow.

vLLM alone (0.32) waits for its head for ever once that has gone, and calls it a success when its worker was killed.
"""

import argparse
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from engine import ranks
from engine.messages import Exit, Problem, complain, say

RETRY_S = 1.0
GRACE_S = 2.0
_WORKER = "VLLM::Worker"
TELL_S = 30.0  # how often a follower without a head says so
# A head that is cut off is noticed half a minute later.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
MASTER_PORT = 29501  # vLLM's own --master-port
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED = "01"


def is_one(argv: Sequence[str]) -> bool:
    """Whether these words start a follower."""
    return "--headless" in argv


def run(program: Callable[[], object], argv: Sequence[str]) -> int:
    """Call vLLM's program, which leaves by SystemExit when it is told to; that it returns is a failure.

    It is called once there is a head: until then no device and no memory of one is taken.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--master-addr", default=ranks.LOOPBACK)
    parser.add_argument("--master-port", type=int, default=MASTER_PORT)
    head, _ = parser.parse_known_args(argv)
    connection = _connected(head.master_addr, head.master_port)
    threading.Thread(target=_end_with, args=(connection, head.master_addr), daemon=True).start()
    program()
    complain(Problem("a worker of the engine on this node has died", "its last words stand above"))
    return Exit.FAILED


def _end_with(connection: socket.socket, address: str) -> None:
    """The head listens on its master port for as long as its worker lives."""
    with connection, contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        while connection.recv(1):
            pass
    say(f"the head of this deployment, {address}, has ended, and so does this node")
    os.kill(os.getpid(), signal.SIGTERM)
    # vLLM (0.32) gives a worker that waits for its head nine seconds to end; there is nothing left to wait for.
    time.sleep(GRACE_S)
    for worker in workers_below(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def workers_below(pid: int, processes: Path = Path("/proc")) -> list[int]:
    """vLLM's workers among the descendants of a process, by the name that they give themselves."""
    parents, workers = {}, []
    for place in processes.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            name, _, rest = (place / "stat").read_text().partition("(")[2].rpartition(")")
            parents[int(place.name)] = int(rest.split()[1])
            workers += [int(place.name)] if name.startswith(_WORKER) else []

    def is_below(one: int) -> bool:
        while one in parents and one != pid:
            one = parents[one]
        return one == pid

    return [worker for worker in workers if is_below(worker)]


def _connected(address: str, port: int) -> socket.socket:
    told = time.monotonic() - TELL_S + 5  # a head that starts at the same time is not worth a line
    while True:
        try:
            connection = socket.create_connection((address, port), timeout=30)
        except OSError as error:
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                say(f"waiting for the head of this deployment at {address}:{port} ({error.strerror or error})")
            time.sleep(RETRY_S)
            continue
        connection.settimeout(None)
        return connection


def wait_for(address: str, port: int) -> None:
    """Return once somebody listens there."""
    _connected(address, port).close()


def listens(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def has_a_head(address: str, port: int, tables: Sequence[Path] = _TABLES) -> bool:
    """Whether this machine holds a connection to the head, by the kernel's own tables: the head is not disturbed."""
    with contextlib.suppress(OSError, ValueError):
        wanted = f"{int.from_bytes(socket.inet_aton(socket.gethostbyname(address)), sys.byteorder):08X}:{port:04X}"
        for table in tables:
            for line in table.read_text().splitlines()[1:]:
                _, _, remote, state, *_ = line.split()
                # An IPv4 address ends as it is in the table of IPv6.
                if state == _ESTABLISHED and remote[-len(wanted) :] == wanted:
                    return True
    return False


def main() -> int:
    """`python -m engine.follower vllm serve … --headless …`."""
    sys.argv = sys.argv[1:]
    program: Any = import_module("vllm.entrypoints.cli.main")
    return run(program.main, sys.argv)


if __name__ == "__main__":
    sys.exit(main())
