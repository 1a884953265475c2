"""python -m llm_service: read the settings, open the port, serve until SIGTERM.

Exit codes: 0 stopped as asked, 1 failed, 2 bad setting, 3 the optional extra is missing.
"""

import ctypes
import errno
import gc
import logging
import os
import socket
import sys
from collections import Counter

from llm_service.app import create_app
from llm_service.config.extras import missing_extra
from llm_service.config.loading import SettingsError, load
from llm_service.config.settings import Settings
from llm_service.port.limits import bounded
from llm_service.port.serving import server_config
from llm_service.port.stopping import Drain, Server
from llm_service.records import logs

_log = logging.getLogger("llm_service")
_M_MMAP_THRESHOLD = -3  # malloc.h
MAPPED_BYTES = 64 * 1024  # as large a piece goes back to the machine when freed; glibc's own limit rises to 32 MiB
GARBAGE_OBJECTS = 10_000  # between two looks for garbage; Python's 700 costs 4 % of the time at 512 streams


def main() -> int:
    """Run the service; return the exit code."""
    try:
        settings = load(os.environ)
    except SettingsError as error:
        for sentence, hint in error.problems:
            _complain(sentence, hint)
        return 2
    if missing := missing_extra(settings):
        setting, extra = missing
        _complain(
            f"{setting} needs the optional extra {extra}, which is not installed.",
            f"Install microservice/requirements-{extra}.txt, or build the image with --build-arg EXTRA={extra}.",
        )
        return 3
    try:
        listener = _listener(settings)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = str(error.strerror).split(" (")[0]  # the rest repeats the address
        _complain(
            f"Cannot listen on {settings.host} port {settings.port}: {reason}.",
            "Stop what holds the port, or set LLM_USVC_PORT." if taken else "Check LLM_USVC_HOST and LLM_USVC_PORT.",
        )
        return 1
    return _serve(settings, listener, logs.configure())


def _listener(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return bounded(socket.create_server((settings.host, settings.port), family=family, backlog=2048))


def _serve(settings: Settings, listener: socket.socket, batch: logs.Batch | None) -> int:
    host, port = listener.getsockname()[:2]
    _log.info("settings", extra={"fields": {"settings": settings.masked()}})
    drain, refused = Drain(), Counter[int]()
    door = create_app(settings, drain, batch, refused)
    server = Server(server_config(door, settings, refused), drain, settings.drain_seconds)
    _return_memory()
    gc.collect()
    gc.freeze()  # what is there for good need not be looked through again
    gc.set_threshold(GARBAGE_OBJECTS)
    _log.info("listening", extra={"fields": {"address": f"{host}:{port}"}})
    try:
        server.run(sockets=[listener])
    finally:
        door.ended.settle()
    _log.info("stopped")
    return 0 if server.started else 1


def _return_memory() -> None:
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:  # glibc's
        set_option(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def _complain(sentence: str, hint: str) -> None:
    sys.stderr.write(f"berth: error: {sentence}\nberth: hint: {hint}\n")


if __name__ == "__main__":
    sys.exit(main())
