"""Options and help texts that several verbs share. Imported before any verb runs: it must load quickly."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from berth.runtimes import Request

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
        help="compose, slurm, native or kubernetes. Unless given: Compose if a Docker Engine answers, Slurm if sbatch "
        "is here.",
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
Name = Annotated[str | None, typer.Option("--name", help="Slurm: the deployment; its model's own name, unless given.")]
Time = Annotated[str | None, typer.Option(metavar="TIME", help="Slurm: walltime of one job, as 4:00:00 or 90m.")]
Nodes = Annotated[int | None, typer.Option(min=1, help="Slurm, Kubernetes: nodes that share the model.")]
KeepAlive = Annotated[
    str | None, typer.Option(metavar="TIME", help="Slurm: serve that long, one job after another, as 36h.")
]
Handover = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Slurm: how long two jobs of --keep-alive overlap, for the later one to load the model; a tenth of the "
        "walltime, from 5 minutes to an hour, unless given.",
    ),
]
Replicas = Annotated[int | None, typer.Option(min=1, help="Slurm, Kubernetes: copies that share the requests.")]
Hosts = Annotated[
    str | None,
    typer.Option(
        "--hosts",
        metavar="A,B",
        help="Docker hosts that share the model, as ssh takes them; the service runs on the first.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


def examples(*lines: str) -> str:
    """The end of a verb's help."""
    return "Examples:\n\n" + "\n\n".join(f"    scripts/{line}" for line in lines) + f"\n\n{CODES}"


def request(
    site: Path | None,
    name: str | None,
    time: str | None,
    nodes: int | None,
    hold: bool,
    keep_alive: str | None,
    replicas: int | None,
    handover: str | None = None,
    hosts: str | None = None,
) -> "Request":
    """What the options of a job ask for. Raises BerthError (exit code 2) for times that are none."""
    from berth.runtimes import Request
    from berth.slurm import durations

    return Request(
        site=site,
        name=name,
        time_s=durations.parse(time, "--time") if time else None,
        nodes=nodes,
        hold=hold,
        keep_alive_s=durations.parse(keep_alive, "--keep-alive") if keep_alive else None,
        replicas=replicas,
        handover_s=durations.parse(handover, "--handover") if handover else None,
        hosts=split_hosts(hosts),
    )


def split_hosts(text: str | None) -> tuple[str, ...]:
    """The hosts of `--hosts a,b`, each once, in their order."""
    return tuple(dict.fromkeys(name for name in (text or "").replace(",", " ").split()))
