"""The way to a job: `connect` and `publish`. Imports stand inside: `--help` must be quick."""

import typer

app = typer.Typer()
