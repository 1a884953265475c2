"""Many jobs: `gc`, `cost` and `launch-many`. Imports stand inside: `--help` must be quick."""

import typer

app = typer.Typer()
