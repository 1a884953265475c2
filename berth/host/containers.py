"""What containers say of themselves through docker-py: logs (read on over restarts), state, ports."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from berth.runtimes import local_url
from engine.growing import split

if TYPE_CHECKING:
    from docker.models.containers import Container

RESTART_POLL_S = 1.0
Find = Callable[[], "Container | None"]
Lines = queue.Queue[tuple[str, str] | None]


def read_logs(sources: Mapping[str, Find], follow: bool, tail: int | None) -> Iterator[tuple[str, str]]:
    """Yield (name, line) of several containers as they come; each source says which container it is now."""
    lines: Lines = queue.Queue()
    for name, find in sources.items():
        threading.Thread(target=_read, args=(name, find, follow, tail, lines), daemon=True).start()
    open_sources = len(sources)
    while open_sources:
        item = lines.get()
        if item is None:
            open_sources -= 1
        else:
            yield item


def _read(name: str, find: Find, follow: bool, tail: int | None, lines: Lines) -> None:
    """Put one container's lines into the queue, and None at the end."""
    from docker.errors import APIError, NotFound

    since: float | None = None
    try:
        while container := find():
            rest = b""
            many: Literal["all"] | int = "all" if tail is None or since else tail
            for piece in container.logs(stream=True, follow=follow, since=since, tail=many):
                whole, end, rest = (rest + piece).rpartition(b"\n")
                for line in split((whole + end).decode(errors="replace")):
                    lines.put((name, line))
            if not follow:
                break
            since = time.time()
            time.sleep(RESTART_POLL_S)
    except (APIError, NotFound, OSError):
        pass
    finally:
        lines.put(None)


def published(container: "Container", *, tls: bool = False) -> str:
    """The URL of a container's first published port."""
    for bindings in container.attrs["NetworkSettings"]["Ports"].values():
        for binding in bindings or ():
            return local_url(binding["HostIp"], int(binding["HostPort"]), tls=tls)
    return ""


def mounted(container: "Container", place: str) -> str:
    """The file or folder of this machine that the container sees at `place`, or nothing."""
    return next((str(one["Source"]) for one in container.attrs["Mounts"] if one["Destination"] == place), "")


def described(container: "Container") -> tuple[str, str]:
    """One word (health where a check gives it, else Docker's state), and what else there is to say."""
    state = container.attrs["State"]
    health = state.get("Health", {}).get("Status")
    restarts = container.attrs["RestartCount"]
    detail = f"container {container.name}" + (f", {restarts} restarts" if restarts else "")
    return (health or state["Status"]) if state["Status"] == "running" else state["Status"], detail
