"""Berth on Slurm from Python, under the verbs' own names. `berth`'s command line is a face of these functions.

    from berth.slurm import api

    print(api.cost("demo").totals())

Every function takes `site`, a site file (None: $BERTH_SITE, else apptainer/site.env), and raises BerthError.
"""

from pathlib import Path

from berth.slurm import cost as costs
from berth.slurm import gc as leftovers
from berth.slurm import site as sites
from berth.slurm.cluster import Cluster
from berth.slurm.store import Store

__all__ = ["cost", "gc", "open_store"]

Site = Path | str | None


def open_store(site: Site = None) -> Store:
    """The store of this user on the cluster that a site file describes."""
    read = sites.load(None if site is None else Path(site))
    return Store(Cluster(read.login), read)


def cost(name: str | None = None, *, site: Site = None) -> costs.Bill:
    """What the jobs of one deployment, or of all, have used."""
    return costs.cost(open_store(site), name)


def gc(older_than_s: float = 7 * leftovers.DAY, *, delete: bool = False, site: Site = None) -> leftovers.Swept:
    """What ended jobs left behind; with `delete` it is gone afterwards."""
    return leftovers.sweep(open_store(site), older_than_s, delete)
