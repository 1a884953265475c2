"""What runs on the cluster: `ls` and `stop`. Imports stand inside: `--help` must be quick."""

import typer

app = typer.Typer()
