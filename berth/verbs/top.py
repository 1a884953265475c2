"""The verb `top`. Imports stand inside: `--help` must be quick."""

import sys
import time
from typing import Annotated

import typer

from berth.options import Json, Name, RuntimeName, Site, examples
from berth.output import show, table

app = typer.Typer()


@app.command(epilog=examples("berth top", "berth top --json", "berth top --runtime slurm --name llama-3.1-8b"))
def top(
    runtime: RuntimeName = None,
    site: Site = None,
    name: Name = None,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Show what every deployment does: phase, requests in flight and waiting, tokens per second, first token, KV cache.

    Live on a terminal, until Ctrl-C. With --json, and into a pipe, one sample: two looks, since a rate needs two.
    """
    from berth.errors import Exit, failed
    from berth.runtimes import Request
    from berth.top import looking, sample

    places = looking.sources(runtime, Request(site=site, name=name))
    seen = looking.look(places)
    live = sys.stdout.isatty() and not as_json
    if not seen.samples and not (live and seen.notes):
        if as_json:
            show({"deployments": [], "notes": seen.notes})
            raise typer.Exit(Exit.FAILED)
        raise failed("; ".join(("nothing runs here", *seen.notes)), "start with scripts/up")
    if live:
        from berth.top import view

        view.follow(lambda: looking.look(places), seen, every)
        return
    time.sleep(every)
    seen = looking.look(places)
    if as_json:
        show({"deployments": [one.facts() for one in seen.samples], "notes": seen.notes})
        return
    table([one.cells() for one in seen.samples], sample.HEADS)
    for note in seen.notes:
        typer.echo(note, err=True)
