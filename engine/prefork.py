"""Starts `vllm …` on a CPU so that its processes share one import of PyTorch and vLLM.

Stock vLLM spawns its engine and each worker as a fresh interpreter that imports everything again: three times seven
seconds of a start. Here everything is imported once; then, while this process has a single thread and holds no
socket, a fork server is split off, from which vLLM's processes are forked. Each gets the environment of the process
that asked for it, so that vLLM's binding of OpenMP threads holds: Intel's OpenMP reads it anew after a fork.
"""

import contextlib
import ctypes
import gc
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from multiprocessing import context, forkserver, resource_tracker
from types import ModuleType
from typing import Any

from engine import follower, inductor
from engine.messages import say

# What the engine and the worker import; the first must come first, as vLLM's own worker says.
_PRELOAD = (
    "vllm.v1.worker.cpu.shm",
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "torch._inductor.compile_fx",
)
_REGISTRY = "vllm.model_executor.models.registry"
# Where vLLM keeps the function that tells how to start a process.
_STARTERS = (
    "vllm.utils.system_utils",
    "vllm.v1.engine.utils",
    "vllm.v1.engine.coordinator",
    "vllm.v1.executor.multiproc_executor",
)


class _Process(context.ForkServerProcess):
    """A forked process that runs in the environment of whoever starts it, not in that of the fork server."""

    _target: Callable[..., object]
    _args: tuple[object, ...]
    _kwargs: Mapping[str, object]

    def start(self) -> None:
        self._args = (dict(os.environ), os.sched_getaffinity(0), self._target, self._args, self._kwargs)
        self._target, self._kwargs = _run, {}
        super().start()


class _Context(context.ForkServerContext):
    Process = _Process


def _run(
    environ: Mapping[str, str],
    cpus: set[int],
    target: Callable[..., object],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> None:
    _signal_when_parent_dies(signal.SIGKILL)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.sched_setaffinity(0, cpus)  # Intel's OpenMP leaves a forked process on one CPU
    os.environ.clear()
    os.environ.update(environ)
    _bind_first_thread()
    target(*args, **kwargs)


def _signal_when_parent_dies(number: int) -> None:
    """A server that was killed leaves nothing behind: the fork server goes with it, and what it forked with that."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, number)


def _bind_first_thread() -> None:
    """In a forked process Intel's OpenMP binds the threads that it starts, but not the one that starts them."""
    if match := re.search(r"proclist=\[(\d+)", os.environ.get("KMP_AFFINITY", "")):
        torch: Any = import_module("torch")
        torch.zeros(1 << 20).add_(1)  # large enough to be shared out, so that the threads start now, unbound
        os.sched_setaffinity(0, {int(match[1])})


def _split_off_fork_server(listener: socket.socket) -> None:
    """What `multiprocessing.forkserver` does with a new interpreter, done with a fork of this one."""
    server: Any = forkserver._forkserver
    server.ensure_running = lambda: None  # or the engine would start a second one, empty, for its workers
    address: str = listener.getsockname()
    resource_tracker.ensure_running()
    alive_r, alive_w = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until the fork server ignores it
    pid = os.fork()
    if pid == 0:
        os.close(alive_w)
        _serve_forks(listener, alive_r)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.close(alive_r)
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = address, alive_w, pid


def _serve_forks(listener: socket.socket, alive: int) -> None:
    """Never returns: leaves with the process that it was split off from, whatever signal a group gets."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit())
    _signal_when_parent_dies(signal.SIGUSR1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    address = listener.getsockname()
    server = os.getpid()
    try:
        forkserver.main(listener.detach(), alive, [])
    finally:
        if os.getpid() == server:
            shutil.rmtree(os.path.dirname(address), ignore_errors=True)
        os._exit(0)


def _listen() -> socket.socket | None:
    """A socket that only this user reaches; None where the path of the temporary folder is too long for one."""
    folder = tempfile.mkdtemp(prefix="berth-")
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(os.path.join(folder, "fork"))
    except OSError:
        listener.close()
        os.rmdir(folder)
        return None
    listener.listen()
    return listener


def _keep_process_titles() -> None:
    """setproctitle looks for the argument list beside the first environment, which later processes replace."""
    with contextlib.suppress(ModuleNotFoundError):
        title: Any = import_module("setproctitle")
        title.getproctitle()


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _imported() -> Mapping[str, ModuleType]:
    """Import everything with the garbage collector off: it would look through millions of new objects again and again,
    40 % of the time, to find next to nothing. What is there then stays, so later collections and forks pass it over.
    """
    gc.disable()
    try:
        return {name: import_module(name) for name in (*_PRELOAD, *_STARTERS, _REGISTRY)}
    finally:
        gc.freeze()
        gc.enable()


def prepare() -> None:
    """Import what all of vLLM's processes need, and split off the fork server."""
    inductor.hand_out_answers(os.environ)
    try:
        _share_one_import(_imported())
    except ImportError as error:  # a vLLM that is laid out otherwise starts as it always does
        say(f"vLLM's processes import it each for themselves ({error})")


def main() -> None:
    """Prepare, and go on as vLLM's own program: `python -m engine.prefork vllm serve …`."""
    sys.argv = sys.argv[1:]
    prepare()
    program: Any = import_module("vllm.entrypoints.cli.main")
    if follower.is_one(sys.argv):
        sys.exit(follower.run(program.main, sys.argv))
    program.main()


def _share_one_import(modules: Mapping[str, ModuleType]) -> None:
    _keep_process_titles()
    # A model's class is looked at in a fresh interpreter lest that wake a GPU; a CPU is awake.
    vars(modules[_REGISTRY])["_run_in_subprocess"] = lambda look: look()
    # Forking is sound with a single thread only; otherwise vLLM spawns its processes as it always does.
    if _threads() == 1 and (listener := _listen()) is not None:
        shared = _Context()
        for name in _STARTERS:
            vars(modules[name])["get_mp_context"] = lambda: shared
        with listener:
            _split_off_fork_server(listener)


if __name__ == "__main__":
    main()
