"""The verbs, each a thin face of a function that returns data. Imports stand inside: `--help` must be quick."""

import json
from pathlib import Path
from typing import Annotated

import typer

from berth.options import (
    CODES,
    Debug,
    Device,
    DryRun,
    Env,
    Handover,
    Hosts,
    Json,
    KeepAlive,
    Name,
    Nodes,
    Replicas,
    RuntimeName,
    Site,
    Time,
    examples,
    request,
    split_hosts,
)
from berth.output import commands, show, table
from berth.verbs import batch, bench, cluster, fit, fleet, keys, models, planning, quantize, sif, top, tunnels

app = typer.Typer(
    name="berth",
    help="Serve an open LLM with vLLM from one env file, in containers or as plain processes.",
    epilog=CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)


def version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from berth import __version__

        print(f"berth {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Debug = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Serve an open LLM with vLLM from one env file, in containers or as plain processes."""


@app.command(
    epilog=examples(
        "up",
        "berth up --env env/cuda.env --env env/models/qwen3-8b.env -d",
        "berth up --runtime slurm --env env/cuda.env --time 4:00:00",
        "berth up --hosts gpu-1,gpu-2 --env env/cuda.env --env env/models/llama-3.1-70b.env -d",
        "berth up --env env/models/demo.env --dry-run",
    )
)
def up(
    env: Env = None,
    device: Device = None,
    runtime: RuntimeName = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once a chat request would be answered.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to wait for the engine to be ready; of a job, from its start.")
    ] = 3600,
    site: Site = None,
    name: Name = None,
    time: Time = None,
    nodes: Nodes = None,
    hold: Annotated[bool, typer.Option("--hold", help="Slurm: submit, and let nothing start.")] = False,
    keep_alive: KeepAlive = None,
    handover: Handover = None,
    replicas: Replicas = None,
    hosts: Hosts = None,
    force: Annotated[bool, typer.Option("--force", help="Start also what by `berth plan` cannot fit.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Start the engine and the service, and show what they do until a chat request would be answered.

    Layers, later wins: env/DEVICE.env, the files given, env/local.env if it is there, the shell.
    A Slurm job goes on when this command ends.
    """
    from berth import up as steps
    from berth.progress import Progress

    wanted = request(site, name, time, nodes, hold, keep_alive, replicas, handover, hosts)
    with Progress() as progress:
        deployment, chosen = steps.plan(env or [], device, runtime, progress, wanted)
        deployment = deployment.forced() if force else deployment
        if dry_run:
            commands(chosen.commands(deployment), as_json)
            return
        started = steps.running_already(deployment, chosen, progress, timeout, not detach)
        fresh = started is None
        if started is None:
            deployment = steps.check(deployment, chosen, progress)
            started = steps.start(deployment, chosen, progress, not detach, timeout)
    stays = not detach and (fresh or not chosen.local)

    def tell() -> None:
        show(started.facts()) if as_json else print(started.words(stays), flush=True)

    if stays:
        chosen.stay(Progress(), tell, show_logs=not as_json)
    else:
        tell()


@app.command(epilog=examples("berth down", "berth down --runtime native --json", "berth down --all"))
def down(
    runtime: RuntimeName = None,
    site: Site = None,
    name: Name = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Slurm: every deployment that has a job. Kubernetes: the volumes, too.")
    ] = False,
    hosts: Hosts = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Stop what `up` started: requests in flight are finished first. Models and compiled code are kept."""
    from berth import runtimes
    from berth.progress import Progress

    wanted = runtimes.Request(site=site, name=name, everything=everything, hosts=split_hosts(hosts))
    found = [runtimes.load(runtime, wanted)] if runtime else runtimes.available(wanted)
    if dry_run:
        commands([command for one in found for command in one.stop_commands()], as_json)
        return
    with Progress() as progress:
        stopped = [one.name for one in found if one.stop(progress)]
    if as_json:
        show({"stopped": bool(stopped), "runtimes": stopped})
    else:
        print("stopped" if stopped else "nothing was running")


@app.command(
    epilog=examples("berth status", "berth status --json", "berth status --name llama-3.1-8b")
    + "\n\nHere: 0 ready, 1 nothing runs, 4 not ready yet."
)
def status(runtime: RuntimeName = None, site: Site = None, name: Name = None, as_json: Json = False) -> None:
    """Say what runs, and whether a chat request would be answered."""
    from dataclasses import asdict, replace

    from berth import runtimes, waiting
    from berth.errors import Exit
    from berth.up import describe

    wanted = runtimes.Request(site=site, name=name)
    found = runtimes.running(runtime, wanted)
    if found is None:
        last = runtimes.load(runtime or "slurm", wanted).status() if runtime or name else None
        if last is None or last.state != "failed":
            show({"state": "stopped"}) if as_json else print("nothing runs here; start with: scripts/up")
        elif as_json:
            show({**asdict(last), "ready": False, "service": {}})
        else:
            table(describe(last))
        raise typer.Exit(Exit.FAILED)
    current = found.status()
    if current.ready is None:
        where = current.endpoint
        service = waiting.service_state(where) if where else {}
        ready = service.get("state") == "ready"
    else:
        service, ready = {}, current.ready
    if ready:  # a container's own health check asks less often
        current = replace(current, state="running")
    if as_json:
        show({**asdict(current), "ready": ready, "service": service})
    else:
        detail = f": {service['detail']}" if service.get("detail") else ""
        rows = [*describe(current), ("ready", "yes" if ready else f"no{detail}")]
        table(rows)
    raise typer.Exit(Exit.OK if ready else Exit.NOT_READY)


@app.command(epilog=examples("berth logs -f", "berth logs engine -n 50"))
def logs(
    part: Annotated[str | None, typer.Argument(help="engine or llm; both unless given.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=0, help="Only the last so many lines.")] = None,
    runtime: RuntimeName = None,
    site: Site = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Print the logs of the engine and the service."""
    from berth import runtimes
    from berth.errors import Exit, failed

    if part not in (None, runtimes.ENGINE, runtimes.SERVICE):
        raise failed(f"{part}: no such part", f"{runtimes.ENGINE} or {runtimes.SERVICE}", Exit.BAD_SETTING)
    wanted = runtimes.Request(site=site, name=name)
    which = runtime or ("slurm" if wanted.of_a_job else None)
    found = runtimes.load(which, wanted) if which else runtimes.running() or runtimes.load("native")
    for line in found.logs(part, follow, lines):
        print(json.dumps({"line": line}) if as_json else line, flush=follow)


@app.command(epilog=examples('berth chat "What is Deep Learning?"', "berth chat --url http://gpu-box:9000"))
def chat(
    question: Annotated[str | None, typer.Argument(help="One question; a conversation unless given.")] = None,
    url: Annotated[str | None, typer.Option(help="The service; the one that runs here unless given.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told to be.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 512,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE", help="File with the key that the service asks for.")
    ] = None,
    cacert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificates to trust; that of what runs here is trusted anyway."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Talk to the model; the answer is printed as it is written."""
    from berth import chat as talking

    talking.run(question, talking.service_at(url, key_file, cacert), system, max_tokens, as_json)


for verbs in (planning, fit, models, batch, quantize, keys, cluster, tunnels, fleet, sif, top, bench):
    app.add_typer(verbs.app)
