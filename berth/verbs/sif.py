"""Images for Apptainer: `sif`. Imports stand inside: `--help` must be quick."""

from pathlib import Path
from typing import Annotated

import typer

from berth.options import DryRun, Json, Site, examples

app = typer.Typer()


@app.command(
    epilog=examples(
        "berth sif cpu",
        "berth sif cuda --from docker-archive:vllm-cuda.tar --output /scratch/me/vllm-cuda.sif",
        "berth sif cuda --from docker://registry.example/vllm-cuda@sha256:…",
        "berth sif cpu --sign key.pem",
        "berth sif cpu --verify pub.pem",
    )
)
def sif(
    device: Annotated[str, typer.Argument(help="cpu, cuda, …: which engine image.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="IMAGE",
            help="docker-daemon:NAME:TAG, docker-archive:FILE or docker://REPOSITORY@sha256:DIGEST;"
            " the image of this checkout in the local Docker Engine unless given.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Where to; sif/vllm-DEVICE.sif in the store unless given."),
    ] = None,
    compression: Annotated[
        str, typer.Option(help="zstd, lz4 or gzip: docs/apptainer.md says what each costs.")
    ] = "zstd",
    sign: Annotated[
        Path | None, typer.Option("--sign", metavar="KEY.pem", help="Sign it with this private key.")
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option("--verify", metavar="PUB.pem", help="Check its signature; without --sign nothing is made."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it even where it is up to date.")] = False,
    site: Site = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make the image for Apptainer (SIF) of a device's engine image; does nothing when it is up to date."""
    from dataclasses import asdict

    from berth import sif as images
    from berth import sources
    from berth.output import commands, show
    from berth.progress import Progress

    program, place = images.settle(device, output, site)
    if verify and not sign:
        images.verify(program, place, verify)
        show({"path": str(place), "verified": True}) if as_json else print(f"{place}: the signature holds")
        return
    found = sources.find(source or sources.default(device))
    plan = images.plan(device, found, place, compression, sign, program)
    if dry_run:
        commands(plan.commands(), as_json)
        return
    with Progress() as progress:
        made = images.make(plan, progress, force)
    if verify:
        images.verify(program, place, verify)
    show(asdict(made)) if as_json else print(made.words())
