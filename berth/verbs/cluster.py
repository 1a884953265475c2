"""What runs on the cluster: `ls` and `stop`. Imports stand inside: `--help` must be quick."""

from typing import Annotated

import typer

from berth.options import DryRun, Json, Site, examples
from berth.output import commands, show, table

app = typer.Typer()


@app.command(name="ls", epilog=examples("berth ls", "berth ls --site apptainer/sites/della.env --json"))
def ls(site: Site = None, as_json: Json = False) -> None:
    """List the Slurm deployments: model, state, node, port, time left, tokens per second."""
    from berth.slurm import listing
    from berth.slurm.api import open_store

    rows = listing.rows(open_store(site))
    if as_json:
        show({"jobs": [row.facts() for row in rows]})
    elif rows:
        table([row.cells() for row in rows], listing.HEADS)
    else:
        print("no deployments here; start one with: scripts/berth up --runtime slurm")


@app.command(epilog=examples("berth stop llama-3.1-8b", "berth stop llama-3.1-8b qwen3-8b --json"))
def stop(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Deployments, as `berth ls` calls them.")],
    site: Site = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Stop Slurm deployments with all their jobs: requests in flight are finished first."""
    from berth.progress import Progress
    from berth.slurm import connections, rendering, stopping
    from berth.slurm.api import open_store

    store = open_store(site)
    known = [store.known(name) for name in names]
    if dry_run:
        asked = stopping.commands(stopping.living(store, known))
        commands([rendering.shown(argv, store.cluster) for argv in asked], as_json)
        return
    with Progress() as progress:
        ended = stopping.stop(store, known, progress)
        for name in known:
            connections.close(name)
    if as_json:
        show({"stopped": bool(ended), "deployments": known, "jobs": ended})
    else:
        print(f"stopped job {', '.join(ended)}" if ended else "nothing was running")
