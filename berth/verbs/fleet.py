"""Many jobs: `gc`, `cost` and `launch-many`. Imports stand inside: `--help` must be quick."""

from pathlib import Path
from typing import Annotated

import typer

from berth.options import DryRun, Json, Site, examples
from berth.output import commands, show, table

app = typer.Typer()


@app.command(epilog=examples("berth cost", "berth cost llama-3.1-8b --price 2.10", "berth cost --json"))
def cost(
    name: Annotated[str | None, typer.Argument(help="A deployment; all of them unless given.")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="What a GPU-hour (CPU-hour) costs, in your money.")] = None,
    site: Site = None,
    as_json: Json = False,
) -> None:
    """Say what the jobs used: time, GPU-hours from Slurm's accounts, tokens, and tokens for a GPU-hour."""
    from berth.slurm import api
    from berth.slurm import cost as costs

    bill = api.cost(name, site=site)
    if as_json:
        show(bill.facts(price))
        return
    table([use.row(price) for use in [*bill.uses, *bill.totals()]], costs.HEADS)
    for note in bill.notes:
        typer.echo(note, err=True)


@app.command(epilog=examples("berth gc", "berth gc --older-than 1d --yes", "berth gc --models --in /projects/models"))
def gc(
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="What is unchanged, and of models unread, for longer.")
    ] = "7d",
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is listed.")] = False,
    of_models: Annotated[
        bool, typer.Option("--models", help="Of models instead: downloads given up, and commits that were replaced.")
    ] = False,
    home: Annotated[
        Path | None,
        typer.Option("--in", metavar="DIR", help="With --models: where they are kept; HF_HOME unless given."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List only, as without --yes.")] = False,
    site: Site = None,
    as_json: Json = False,
) -> None:
    """List what ended jobs left behind; delete it with --yes. Models and compiled code are kept.

    Old runs and their logs, endpoint files of dead jobs, connections to jobs that are gone, images half made.
    With --models: what is left in a folder of models. The commit that a branch means is kept, however old.
    """
    from berth.slurm import api
    from berth.slurm import gc as leftovers

    yes = yes and not dry_run
    if of_models:
        from berth.models import inventory

        swept = inventory.gc(home, older_than, delete=yes)
    else:
        swept = api.gc(older_than, delete=yes, site=site)
    if as_json:
        show(swept.facts())
        return
    table([each.row() for each in swept.found], leftovers.HEADS)
    for note in swept.notes:
        typer.echo(note, err=True)
    count = f"{len(swept.found)} leftover{'' if len(swept.found) == 1 else 's'}, {leftovers.size(swept.bytes)}"
    same = f"scripts/berth gc{' --models' if of_models else ''}{f' --in {home}' if home else ''} --yes"
    hint = "" if yes or not swept.found else f"; delete with: {same}"
    typer.echo(f"{count}{' deleted' if yes and swept.found else ''}{hint}", err=True)


@app.command(
    name="launch-many",
    epilog=examples(
        "berth launch-many apptainer/examples/fleet.toml --dry-run", "berth launch-many models.toml --site della.env"
    ),
)
def launch_many(
    file: Annotated[
        Path, typer.Argument(help="A TOML file of [[deployment]] tables, as apptainer/examples/fleet.toml.")
    ],
    site: Site = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Submit several deployments at once: all of them, or none when one cannot be.

    Then: berth ls, and berth connect NAME for each.
    """
    from berth.progress import Progress
    from berth.slurm import launching

    with Progress() as progress:
        ready = launching.prepare(file, progress, site, ask_cluster=not dry_run)
        if dry_run:
            commands([command for one in ready for command in one.commands], as_json)
            return
        done = launching.launch(ready, progress)
    if as_json:
        show({"deployments": [one.facts() for one in done]})
    else:
        table([one.row() for one in done], launching.HEADS)
