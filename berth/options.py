"""Options and help texts that several verbs share. Imported before any verb runs: it must load quickly."""

from pathlib import Path
from typing import Annotated

import typer

CODES = "Exit codes: 0 ok, 1 failed, 2 bad usage or bad setting, 3 missing prerequisite, 4 not ready in time."

Env = Annotated[
    list[Path] | None,
    typer.Option("--env", metavar="FILE", help="An env file; may be given several times, later ones win."),
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, …; found on this machine unless given.")]
RuntimeName = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        help="compose, slurm or native. Unless given: Compose if a Docker Engine answers, Slurm if sbatch is here.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the exact commands and start nothing.")]
Site = Annotated[
    Path | None,
    typer.Option(
        "--site", metavar="FILE", help="Slurm: the site file; $BERTH_SITE, else apptainer/site.env, unless given."
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


def examples(*lines: str) -> str:
    """The end of a verb's help."""
    return "Examples:\n\n" + "\n\n".join(f"    scripts/{line}" for line in lines) + f"\n\n{CODES}"
