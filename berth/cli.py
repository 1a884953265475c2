"""The verbs, each a thin face of a function that returns data. Imports stand inside: `--help` must be quick."""

import json
from typing import Annotated

import typer

from berth.options import CODES, Debug, Device, DryRun, Env, Json, RuntimeName, examples
from berth.output import commands, show, table
from berth.verbs import cluster, fleet, sif, tunnels

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
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the engine to be ready.")] = 3600,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Start the engine and the service, and show what they do until a chat request would be answered.

    Layers, later wins: env/DEVICE.env, the files given, env/local.env if it is there, the shell.
    """
    from berth import up as steps
    from berth.progress import Progress

    with Progress() as progress:
        deployment, chosen = steps.plan(env or [], device, runtime, progress)
        if dry_run:
            commands(chosen.commands(deployment), as_json)
            return
        started = steps.running_already(deployment)
        if started is None:
            deployment = steps.check(deployment, chosen, progress)
            started, fresh = steps.start(deployment, chosen, progress, not detach, timeout), True
        else:
            progress.say("already running")
            fresh = False
    stays = fresh and not detach
    show(started.facts()) if as_json else print(started.words(stays), flush=True)
    if stays:
        steps.stay(chosen, Progress(), show_logs=not as_json)


@app.command(epilog=examples("berth down", "berth down --runtime native --json"))
def down(runtime: RuntimeName = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Stop what `up` started: requests in flight are finished first. Models and compiled code are kept."""
    from berth import runtimes
    from berth.progress import Progress

    found = [runtimes.load(runtime)] if runtime else runtimes.available()
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
    epilog=examples("berth status", "berth status --json") + "\n\nHere: 0 ready, 1 nothing runs, 4 not ready yet."
)
def status(runtime: RuntimeName = None, as_json: Json = False) -> None:
    """Say what runs, and whether a chat request would be answered."""
    from dataclasses import asdict, replace

    from berth import runtimes, waiting
    from berth.errors import Exit
    from berth.up import describe

    found = runtimes.running(runtime)
    if found is None:
        show({"state": "stopped"}) if as_json else print("nothing runs here; start with: scripts/up")
        raise typer.Exit(Exit.FAILED)
    current = found.status()
    service = waiting.service_state(current.endpoint.service) if current.endpoint else {}
    if ready := service.get("state") == "ready":  # a container's own health check asks less often
        current = replace(current, state="running")
    if as_json:
        show({**asdict(current), "ready": ready, "service": service})
    else:
        rows = [*describe(current), ("ready", "yes" if ready else f"no: {service.get('detail', '')}")]
        table(rows)
    raise typer.Exit(Exit.OK if ready else Exit.NOT_READY)


@app.command(epilog=examples("berth logs -f", "berth logs engine -n 50"))
def logs(
    part: Annotated[str | None, typer.Argument(help="engine or llm; both unless given.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=0, help="Only the last so many lines.")] = None,
    runtime: RuntimeName = None,
    as_json: Json = False,
) -> None:
    """Print the logs of the engine and the service."""
    from berth import runtimes
    from berth.errors import Exit, failed

    if part not in (None, runtimes.ENGINE, runtimes.SERVICE):
        raise failed(f"{part}: no such part", f"{runtimes.ENGINE} or {runtimes.SERVICE}", Exit.BAD_SETTING)
    found = runtimes.load(runtime) if runtime else runtimes.running() or runtimes.load("native")
    for line in found.logs(part, follow, lines):
        print(json.dumps({"line": line}) if as_json else line, flush=follow)


@app.command(epilog=examples('berth chat "What is Deep Learning?"', "berth chat --url http://gpu-box:9000"))
def chat(
    question: Annotated[str | None, typer.Argument(help="One question; a conversation unless given.")] = None,
    url: Annotated[str | None, typer.Option(help="The service; the one that runs here unless given.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told to be.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 512,
    as_json: Json = False,
) -> None:
    """Talk to the model; the answer is printed as it is written."""
    from berth import chat as talking

    talking.run(question, url, system, max_tokens, as_json)


@app.command(epilog=examples("berth build", "berth build --device cuda --dry-run"))
def build(
    env: Env = None,
    device: Device = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Build every step anew.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Build the device's engine image and the service's image."""
    import shlex

    from berth import deployment as deployments
    from berth import images, runtimes
    from berth.progress import Progress
    from berth.runtimes.compose import Runtime

    chosen, _ = runtimes.choose("compose")
    assert isinstance(chosen, Runtime)
    wanted = chosen.images_of(deployments.resolve(env or [], device))
    if dry_run:
        commands([shlex.join(image.build_command(no_cache)) for image in wanted], as_json)
        return
    with Progress() as progress:
        for image in wanted:
            images.build(image, progress, no_cache)
    built = [image.tag for image in wanted]
    show({"images": built}) if as_json else print("\n".join(built))


@app.command(
    epilog=examples("berth render --env env/cpu.env", "berth render --runtime native --env env/models/demo.env")
)
def render(env: Env = None, device: Device = None, runtime: RuntimeName = None, as_json: Json = False) -> None:
    """Print what a deployment comes to: the Compose model, or the launcher's command. Secrets are masked."""
    from berth import deployment as deployments
    from berth import runtimes

    deployment = deployments.resolve(env or [], device)
    deployments.check_settings(deployment)
    chosen, _ = runtimes.choose(runtime)
    text = chosen.render(deployment)
    show({"runtime": chosen.name, "device": deployment.device, "rendered": text}) if as_json else print(text)


@app.command(epilog=examples("berth doctor", "berth doctor --device cuda --runtime compose"))
def doctor(device: Device = None, runtime: RuntimeName = None, as_json: Json = False) -> None:
    """Say what this machine lacks for each device and runtime, and the remedy.

    A missing device or runtime fails the command only when it is asked for by name.
    """
    from dataclasses import asdict

    from berth import doctor as examination
    from berth.errors import Exit

    findings = examination.examine(device, runtime)
    broken = [finding for finding in findings if finding.required and not finding.ok]
    if as_json:
        show({"ok": not broken, "checks": [asdict(finding) for finding in findings]})
    else:
        table([finding.row() for finding in findings], examination.HEADS)
    raise typer.Exit(Exit.MISSING_PREREQUISITE if broken else Exit.OK)


for verbs in (cluster, tunnels, fleet, sif):
    app.add_typer(verbs.app)
