"""The logs of a run, read or followed where they are."""

import queue as queues
import threading
from collections.abc import Iterator
from contextlib import suppress

from berth.errors import failed
from berth.runtimes import ENGINE, SERVICE
from berth.slurm.listing import rows
from berth.slurm.store import Store

_ORDER = ("batch.log", "engine-", "door.log")
_OF = {ENGINE: ("engine-",), SERVICE: ("door.log",), None: _ORDER}


def read(store: Store, name: str, part: str | None, follow: bool, tail: int | None) -> Iterator[str]:
    """Lines of the last run that has begun; of several files, each line begins with its file's name.

    Raises BerthError (exit code 1) where no job has begun yet.
    """
    directory = f"{store.deployment_dir(name)}/runs/{_run(store, name)}"
    listed = store.cluster.listdir(directory)
    files = [file for start in _OF[part] for file in listed if file.startswith(start) and file.endswith(".log")]
    if not files:
        raise failed(f"{name} has no {part or 'job'} log yet", f"scripts/berth status --name {name} says how far it is")
    paths = {file: f"{directory}/{file}" for file in files}
    lines = _followed(store, paths, tail) if follow else _read(store, paths, tail)
    for file, line in lines:
        yield line if len(files) == 1 else f"{file.removesuffix('.log'):8} | {line}"


def _run(store: Store, name: str) -> str:
    said = [row for row in rows(store, [name]) if row.state != "queued"]
    if run := next((row.job for row in said if row.job), ""):
        return run
    raise failed(f"{name} is in the queue: there is no log yet", f"scripts/berth status --name {name} says why")


def _read(store: Store, paths: dict[str, str], tail: int | None) -> Iterator[tuple[str, str]]:
    for file, path in paths.items():
        lines = (store.cluster.read(path) or b"").decode(errors="replace").splitlines()
        for line in lines if tail is None else lines[-tail:] if tail else []:
            yield file, line


def _followed(store: Store, paths: dict[str, str], tail: int | None) -> Iterator[tuple[str, str]]:
    """Lines of all files as they come, until the caller stops asking."""
    came: queues.Queue[tuple[str, str]] = queues.Queue()

    def follow(file: str, path: str) -> None:
        with suppress(OSError, ValueError):
            for line in store.cluster.follow(path, tail):
                came.put((file, line))

    for file, path in paths.items():
        threading.Thread(target=follow, args=(file, path), daemon=True).start()
    while True:
        yield came.get()
