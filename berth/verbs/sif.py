"""Images for Apptainer: `sif`. Imports stand inside: `--help` must be quick."""

import typer

app = typer.Typer()
