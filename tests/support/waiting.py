"""Waiting for a condition, and ports that nobody else holds."""

import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float, what: str, interval: float = 0.1) -> T:
    """Return the first true value of `condition`, asked every `interval` seconds.

    Raises AssertionError naming `what` when `timeout` seconds pass without one. `timeout` is a bound for hangs,
    not a statement about speed.
    """
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:.0f} s")
        time.sleep(interval)


def free_port() -> int:
    """A TCP port of the loopback interface that was free when asked."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
