"""Models: `fetch`, `verify`, `models`, `bundle`. Imports stand inside: `--help` must be quick."""

from pathlib import Path
from typing import Annotated

import typer

from berth.options import Device, Env, Json, examples

app = typer.Typer()

Home = Annotated[
    Path | None,
    typer.Option("--in", metavar="DIR", help="Where models are kept, as HF_HOME or BERTH_CACHE; HF_HOME unless given."),
]
Revision = Annotated[str, typer.Option(help="A branch, a tag or a commit.")]


@app.command(
    epilog=examples(
        "berth fetch Qwen/Qwen3-8B",
        "berth fetch meta-llama/Llama-3.1-70B-Instruct --to /projects/models --max-workers 16",
        "berth fetch tiiuae/falcon-7b-instruct --revision cf4b3c42ce2fdfe24f753f0f0d179202fea59c99"
        " --tar tiiuae--falcon-7b-instruct",
        "berth fetch Qwen/Qwen3-8B --to s3://bucket",
        "berth fetch s3://bucket/models/qwen3/b968826",
        "berth fetch Qwen/Qwen3-8B --exclude '*.md' --dry-run",
    )
)
def fetch(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model on the hub, org/name; or a place in a store.")],
    revision: Revision = "main",
    include: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only such files; may be given several times.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="No such files; may be given several times.")
    ] = None,
    max_workers: Annotated[int, typer.Option(min=1, max=64, help="Files at a time.")] = 8,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|s3://…", help="Where models are kept, as HF_HOME or BERTH_CACHE; or a bucket, as well."
        ),
    ] = None,
    tar: Annotated[
        str | None, typer.Option(metavar="NAME", help="Also pack it in NAME.tar; with s3://, that is what is sent.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched, and fetch nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a model from the hub, or back from an object store: whole, checked, and at one commit.

    Run again, it goes on where it stopped. Where a model has safetensors, its weights in other
    formats are left out unless --include names them.
    """
    from berth.models import orders
    from berth.models.environment import environment
    from berth.output import show, table
    from berth.progress import Progress

    order = orders.Order(model, revision, tuple(include or ()), tuple(exclude or ()), max_workers, to, tar)
    with Progress() as progress:
        if dry_run:
            planned = orders.preview(order, environment(), progress)
        else:
            done = orders.carry_out(order, environment(), progress)
    if dry_run:
        show(planned.facts()) if as_json else table(planned.rows())
    elif as_json:
        show(done.facts())
    else:
        table(done.rows())


@app.command(
    epilog=examples(
        "berth verify Qwen/Qwen3-8B",
        "berth verify tiiuae--falcon-7b-instruct.tar",
        "berth verify /mnt/usb/bundle --json",
    )
)
def verify(
    what: Annotated[
        str, typer.Argument(metavar="MODEL|FILE|DIR", help="A model that is here, a tar file, or a bundle.")
    ],
    revision: Revision = "main",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Check every byte of a model against its checksums. Needs no network. Exit code 1 where something is wrong."""
    from berth.errors import Exit
    from berth.models import verify as checks
    from berth.models.environment import environment
    from berth.models.hubcache import cache_of
    from berth.models.transfer import Transfer, size
    from berth.output import show
    from berth.progress import Progress

    with Progress() as progress:
        verdict = checks.run(what, revision, cache_of(home, environment()), Transfer(progress))
    if as_json:
        show(verdict.facts())
    else:
        for line in verdict.wrong:
            print(line)
        print(f"{verdict.what}: {size(verdict.bytes)}, {'WRONG' if verdict.wrong else 'all right'}")
    if verdict.wrong:
        raise typer.Exit(Exit.FAILED)


@app.command(epilog=examples("berth models", "berth models --in /projects/models --json"))
def models(home: Home = None, as_json: Json = False) -> None:
    """List the models that are here: revision, size, and when they were last read."""
    import time

    from berth.models import inventory
    from berth.models.environment import environment
    from berth.models.hubcache import cache_of
    from berth.output import show, table

    cache = cache_of(home, environment())
    found = inventory.models(cache)
    if as_json:
        show({"cache": str(cache), "models": [model.facts() for model in found]})
    elif found:
        table([model.row(time.time()) for model in found], inventory.HEADS)
    else:
        typer.echo(f"no model in {cache}; fetch one with: scripts/berth fetch org/name", err=True)


@app.command(
    epilog=examples(
        "berth bundle /mnt/usb/qwen --env env/cuda.env --env env/models/qwen3-8b.env",
        "berth bundle /mnt/usb/qwen --env env/cuda.env --sif vllm-cuda.sif",
    )
)
def bundle(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    env: Env = None,
    device: Device = None,
    sif: Annotated[
        Path | None, typer.Option(metavar="FILE", help="This image for Apptainer instead of Docker's images.")
    ] = None,
    home: Home = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be in it, and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Put images, model, files and checksums in one folder, for a site without a network; there, run DIR/start."""
    from berth import deployment as deployments
    from berth.models import bundle as bundles
    from berth.models.environment import environment
    from berth.models.hubcache import cache_of
    from berth.models.transfer import Transfer, size
    from berth.output import show
    from berth.progress import Progress
    from berth.runtimes.compose import Runtime

    wanted = deployments.resolve(env or [], device)
    images = [] if sif else [image.tag for image in Runtime().images_of(wanted)]
    if dry_run:
        parts = [wanted.model, *images, *([str(sif)] if sif else [])]
        show({"folder": str(folder), "parts": parts}) if as_json else print("\n".join(parts))
        return
    with Progress() as progress:
        made = bundles.make(folder, wanted, cache_of(home, environment()), images, sif, Transfer(progress))
    show(made.facts()) if as_json else print(f"{made.folder}: {size(made.bytes)}; there: {made.folder.name}/start")
