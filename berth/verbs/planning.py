"""What comes before a start: `build`, `render` and `doctor`. Imports stand inside: `--help` must be quick."""

from pathlib import Path
from typing import Annotated

import typer

from berth.options import (
    Device,
    DryRun,
    Env,
    Handover,
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
)
from berth.output import commands, show, table

app = typer.Typer()


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
    epilog=examples(
        "berth render --env env/cpu.env",
        "berth render --runtime native --env env/models/demo.env",
        "berth render --runtime slurm --env env/cuda.env --time 4:00:00",
        "berth render --runtime kserve --env env/cuda.env --env env/models/qwen3-8b.env",
        "berth render --runtime aicore --env env/cuda.env --env env/models/mistral-7b.env",
        "berth render --runtime quadlet --env env/cuda.env --to ~/.config/containers/systemd",
    )
)
def render(
    env: Env = None,
    device: Device = None,
    runtime: RuntimeName = None,
    site: Site = None,
    name: Name = None,
    time: Time = None,
    nodes: Nodes = None,
    keep_alive: KeepAlive = None,
    handover: Handover = None,
    replicas: Replicas = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="quadlet, podman: write the files into this folder.", file_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what a deployment comes to, secrets masked: the Compose model, the launcher's command, the job, manifests.

    `kserve` and `aicore` (SAP AI Core) are printed only: apply them with that cluster's own tools. `quadlet` (units for
    systemd) and `podman` (for `podman kube play`) likewise.
    """
    from berth import deployment as deployments
    from berth import kserve, podman, up
    from berth.errors import Exit, failed
    from berth.progress import Progress

    wanted = request(site, name, time, nodes, False, keep_alive, replicas, handover)
    if to and runtime not in podman.FACES:
        raise failed("--to is for --runtime quadlet and podman", "leave it out, or add one of these", Exit.BAD_SETTING)
    if runtime in kserve.FACES or runtime in podman.FACES:
        wanted.only_here(runtime)
        deployment = deployments.resolve(env or [], device)
        deployments.check_settings(deployment)
        if runtime in podman.FACES:
            podman.deliver(runtime, deployment, to, as_json)
            return
        text = kserve.render(runtime, deployment)
        show({"runtime": runtime, "device": deployment.device, "rendered": text}) if as_json else print(text)
        return
    with Progress() as progress:
        deployment, chosen = up.plan(env or [], device, runtime, progress, wanted)
    text = chosen.render(deployment)
    show({"runtime": chosen.name, "device": deployment.device, "rendered": text}) if as_json else print(text)


@app.command(
    epilog=examples(
        "berth doctor", "berth doctor --device cuda --runtime compose", "berth doctor --runtime slurm --device cuda"
    )
)
def doctor(device: Device = None, runtime: RuntimeName = None, site: Site = None, as_json: Json = False) -> None:
    """Say what this machine lacks for each device and runtime, and the remedy.

    A missing device or runtime fails the command only when it is asked for by name.
    """
    from dataclasses import asdict

    from berth import doctor as examination
    from berth.errors import Exit
    from berth.runtimes import Request

    if site:
        runtime = runtime or "slurm"
    findings = examination.examine(device, runtime, Request(site=site))
    broken = [finding for finding in findings if finding.required and not finding.ok]
    if as_json:
        show({"ok": not broken, "checks": [asdict(finding) for finding in findings]})
    else:
        table([finding.row() for finding in findings], examination.HEADS)
    raise typer.Exit(Exit.MISSING_PREREQUISITE if broken else Exit.OK)
