"""The service's memory over minutes of 128 streams, of which every fifth is left by its client."""

import json
import statistics
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from containers import note
from door_contestants import run
from door_machine import Watched, cores, engine, load

STREAMS, LEAVE_EVERY, SAMPLE_S = 128, 5, 2.0
GROWTH = 1.03  # noise of the allocator; a leak of 1 KiB a stream would be some 30 MiB in ten minutes


def soak(minutes: float, as_json: bool) -> int:
    """Print the memory at the beginning and in the end; 1 when it grew, or a reply was lost."""
    core = cores()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="berth-door-")))
        fake, port = engine(core.ends)
        stack.callback(fake.end)
        ours = run("ours", port, core.relay, place)
        assert ours.watched is not None
        stack.callback(ours.watched.end)
        samples, done = [ours.watched.memory_mib()], threading.Event()
        sampler = threading.Thread(target=_sample, args=(ours.watched, samples, done))
        sampler.start()
        note(f"{STREAMS} streams for {minutes:g} minutes")
        try:
            result = load(core.ends, ours.port, "paced", STREAMS, 0, minutes * 60, ours.key, str(LEAVE_EVERY))
        finally:
            done.set()
            sampler.join()
    return _report(samples, result, minutes, as_json)


def _sample(watched: Watched, samples: list[float], done: threading.Event) -> None:
    while not done.wait(SAMPLE_S):
        samples.append(watched.memory_mib())


def _report(samples: list[float], result: dict[str, Any], minutes: float, as_json: bool) -> int:
    # Pools, buffers and the allocator's arenas come to their size in steps; after a quarter of the time they have.
    quarter = max(1, len(samples) // 4)
    early, late = statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])
    tenths = [round(samples[len(samples) * tenth // 10], 1) for tenth in range(10)]
    faults = {fault: result[fault] for fault in ("errors", "short", "stuck")}
    found = {
        "benchmark": "door --soak",
        "minutes": minutes,
        "streams": result["all_requests"],
        "left_by_their_clients": result["left"],
        "memory_mib": {"idle": samples[0], "early": early, "late": late, "highest": max(samples)},
        "memory_by_tenths_mib": tenths,
        "growth": round(late / early, 4),
        "faults": faults,
    }
    if as_json:
        print(json.dumps(found))
    else:
        print(
            f"{minutes:g} minutes, {STREAMS} at once: {found['streams']:,} streams ended, {result['left']:,} were left"
        )
        print(f"memory in MiB: {samples[0]:.1f} idle, {early:.1f} early, {late:.1f} late, {max(samples):.1f} at most")
        print(f"by tenths of the time: {' '.join(map(str, tenths))}")
        print(
            f"growth {found['growth']} (at most {GROWTH}); {', '.join(f'{n} {fault}' for fault, n in faults.items())}"
        )
    return 0 if late / early <= GROWTH and not any(faults.values()) else 1
