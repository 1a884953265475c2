"""Slurm: the figures that each job writes into its endpoint file, a heartbeat old at most."""

from berth.slurm import listing
from berth.slurm.listing import Row
from berth.slurm.store import Store
from berth.top.sample import Sample, load


class Jobs:
    """The living jobs of this user, or of one deployment."""

    name = "slurm"

    def __init__(self, store: Store, deployment: str | None = None) -> None:
        self._store, self._deployment = store, deployment

    def look(self) -> list[Sample]:
        """A sample for each job that has not ended."""
        rows = listing.rows(self._store, [self._deployment] if self._deployment else None)
        return [sample(row) for row in rows if row.live]


def sample(row: Row) -> Sample:
    """A row of `berth ls`, with what its job tells of the engine."""
    watched = row.endpoint.watch if row.endpoint else {}
    ready = row.state == "ready"
    phase = watched.get("phase") or {} if row.state == "starting" else {}
    return Sample(
        "slurm",
        f"{row.name} {row.job}".strip(),
        row.model,
        row.device,
        row.state,
        str(phase.get("name", "")),
        phase.get("fraction"),
        row.detail,
        time_left_s=row.time_left_s,
        endpoint=row.endpoint.base_url if row.endpoint else "",
        **load(watched if ready else {}),
    )
