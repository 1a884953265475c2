"""Bulk work: `batch` and `warm`. Imports stand inside: `--help` must be quick."""

from pathlib import Path
from typing import Annotated

import typer

from berth.options import Device, DryRun, Env, Json, Name, Replicas, RuntimeName, Site, Time, examples, request
from berth.output import commands, show

app = typer.Typer()


@app.command(
    epilog=examples(
        "berth batch in.jsonl -o out.jsonl --env env/models/demo.env",
        "berth batch in.jsonl -o out.jsonl --env env/cuda.env --runtime slurm --replicas 4 --time 4:00:00",
    )
)
def batch(
    requests: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Requests in OpenAI's batch form, one a line.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.jsonl", help="Where the answers go.")],
    env: Env = None,
    device: Device = None,
    runtime: RuntimeName = None,
    site: Site = None,
    name: Name = None,
    time: Time = None,
    replicas: Replicas = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Answer a file of requests with vLLM's offline engine, without a server.

    Each answer is written down as it comes: the same command again goes on where the last one was ended, however that
    was. Requests that fail are in OUT.errors.jsonl, and make the exit code 1.
    """
    from berth import up
    from berth.batch import folder, work
    from berth.errors import Exit
    from berth.progress import Progress

    asked = folder.Batch(requests.absolute(), output.absolute())
    wanted = request(site, name, time, None, False, None, replicas)
    with Progress() as progress:
        deployment, chosen = up.plan(env or [], device, runtime, progress, wanted)
        if dry_run:
            commands(work.commands(asked, deployment, chosen), as_json)
            return
        result = work.run(asked, deployment, chosen, progress)
    show(result.facts()) if as_json else print(result.words())
    raise typer.Exit(Exit.FAILED if result.outcome.failed else Exit.OK)


@app.command(
    epilog=examples("berth warm --env env/cuda.env --env env/models/qwen3-8b.env", "berth warm --runtime native --json")
)
def warm(
    env: Env = None,
    device: Device = None,
    runtime: RuntimeName = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Start the engine once and end it, so that the model and the compiled code are in the caches before `up`."""
    from berth import up
    from berth.batch import warming
    from berth.progress import Progress
    from berth.runtimes import NOTHING

    with Progress() as progress:
        deployment, chosen = up.plan(env or [], device, runtime, progress, NOTHING)
        if dry_run:
            commands([warming.command(deployment, chosen)], as_json)
            return
        warmed = warming.warm(deployment, chosen, progress)
    show(warmed.facts()) if as_json else print(f"{warmed.model} is warm on {warmed.device} ({warmed.seconds:.0f} s)")
