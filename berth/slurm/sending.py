"""Gives Slurm the jobs of a plan: all of them, or none."""

from berth.errors import BerthError
from berth.slurm import refusals
from berth.slurm.store import Store
from berth.slurm.submit import Plan


def send(plan: Plan, store: Store) -> tuple[list[str], list[list[str]]]:
    """Submit every job of `plan`. Returns their ids and the sbatch commands.

    Raises BerthError for a job that Slurm refuses; those before it are cancelled then, as after Ctrl-C.
    """
    ids: list[str] = []
    argvs = []
    cluster = store.cluster
    try:
        for place in range(len(plan.links) or 1):
            argv = plan.argv(place, ids)
            done = cluster.run(argv, check=False)
            if done.code:
                raise BerthError(refusals.refused(done.stderr, plan, cluster, store.site))
            ids.append(done.stdout.strip().splitlines()[-1].partition(";")[0])
            argvs.append(argv)
    except BaseException:
        if ids:
            cluster.run(["scancel", "--quiet", *ids], check=False)
        raise
    return ids, argvs
