"""What Linux says of this process, under the names that every Prometheus client uses."""

import os
import time
from collections.abc import Iterator

from llm_service.records.exposition import Metric

_STARTED_AT = time.time()  # this module is imported as the service starts


def metrics() -> Iterator[Metric]:
    """Yield memory, processor time, files and age of this process."""
    yield _one("process_resident_memory_bytes", "Memory that is in use, in bytes.", resident_bytes())
    yield _one("process_open_fds", "Open files and connections.", len(os.listdir("/proc/self/fd")))
    yield _one("process_start_time_seconds", "When this process was started, in seconds since 1970.", _STARTED_AT)
    meaning = "Processor time that was used, in seconds."
    yield Metric.counter("process_cpu_seconds", meaning, (), {(): time.process_time()})


def resident_bytes() -> int:
    """Return the memory that this process has in use."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _one(name: str, meaning: str, value: float) -> Metric:
    return Metric.gauge(name, meaning, (), {(): value})
