"""Looks at every runtime at once, so that a cluster that is slow to answer holds up no other."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from berth import runtimes
from berth.errors import BerthError
from berth.runtimes import Request
from berth.top.here import Here
from berth.top.jobs import Jobs
from berth.top.pods import Pods
from berth.top.sample import Sample


class Source(Protocol):
    """One place where deployments run."""

    name: str

    def look(self) -> list[Sample]:
        """What runs there now. Raises BerthError where it does not answer."""


@dataclass(frozen=True)
class Look:
    """Everything that was seen at one moment; `notes` say which places did not answer, and why."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()


def sources(runtime: str | None, request: Request) -> list[Source]:
    """The places to look at: one runtime, or all that this machine has. Raises BerthError for one it has not."""
    if runtime:
        chosen, _ = runtimes.choose(runtime, request)
        return [_source(chosen, request)]
    return [_source(found, request) for found in runtimes.available(request)]


def _source(runtime: runtimes.Runtime, request: Request) -> Source:
    from berth.runtimes import slurm

    if isinstance(runtime, slurm.Runtime):
        name = runtime.store.known(request.name) if request.name else None
        return Jobs(runtime.store, name)
    if runtime.name == "kubernetes":
        return Pods(runtime)
    return Here(runtime)


def look(places: Sequence[Source]) -> Look:
    """Look at all of them, each in a thread of its own."""
    if not places:
        return Look(())
    with ThreadPoolExecutor(len(places)) as pool:
        found = list(pool.map(_look, places))
    return Look(
        tuple(one for each in found for one in each.samples), tuple(note for each in found for note in each.notes)
    )


def _look(place: Source) -> Look:
    try:
        return Look(tuple(place.look()))
    except BerthError as error:
        return Look((), (f"{place.name}: {error.problems[0].sentence}",))
