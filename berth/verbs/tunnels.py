"""The way to a job: `connect` and `publish`. Imports stand inside: `--help` must be quick."""

from typing import Annotated

import typer

from berth.options import Json, Site, examples

app = typer.Typer()


@app.command(epilog=examples("berth connect", "berth connect demo --port 9000", "berth connect demo -d --json"))
def connect(
    name: Annotated[str | None, typer.Argument(help="The deployment; the one that has a job, unless given.")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Local port; the last one, if it is free, or a free one, unless given."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once a request would be answered.")] = False,
    site: Site = None,
    as_json: Json = False,
) -> None:
    """Give a Slurm deployment an address on this machine, which stays while jobs and tunnels come and go.

    From the login node, or through SSH from elsewhere. It ends with the deployment's last job; Ctrl-C ends it sooner,
    and the job runs on.
    """
    from berth.output import show
    from berth.progress import Progress
    from berth.slurm import connect as steps
    from berth.slurm.cluster import Cluster
    from berth.slurm.site import load
    from berth.slurm.store import Store

    where = load(site)
    store = Store(Cluster(where.login), where)
    with Progress() as progress:
        connection, new = steps.open_door(store, name or steps.only_one(store), port, not detach, progress)
        if not new:
            progress.say("already connected")
    stays = new and not detach
    show(connection.facts()) if as_json else print(connection.words(stays), flush=True)
    if stays:
        steps.stay(connection, Progress())


@app.command(epilog=examples("berth publish demo --to me@vm", "berth publish demo --to me@vm:6789 -d"))
def publish(
    name: Annotated[str, typer.Argument(help="The deployment.")],
    to: Annotated[str, typer.Option(metavar="USER@MACHINE[:PORT]", help="Where; on a free port unless one is given.")],
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it answers there.")] = False,
    site: Site = None,
    as_json: Json = False,
) -> None:
    """Make a Slurm deployment answer on another machine's loopback interface, through a reverse tunnel from here.

    A table on that machine says which model has which port, so that nobody takes another's. It ends with the
    deployment's last job; Ctrl-C ends it sooner, and the job runs on.
    """
    from berth.output import show
    from berth.progress import Progress
    from berth.slurm import connect as connecting
    from berth.slurm import publish as steps
    from berth.slurm.cluster import Cluster
    from berth.slurm.connections import close
    from berth.slurm.site import load
    from berth.slurm.store import Store

    destination, port = steps.target(to)
    where = load(site)
    store = Store(Cluster(where.login), where)
    with Progress() as progress:
        connection, new = connecting.open_door(store, name, None, not detach, progress)
        try:
            published = steps.publish(connection, destination, port, progress)
        except BaseException:
            if new:
                close(name)
            raise
    show(published.facts()) if as_json else print(published.words(not detach), flush=True)
    if not detach:
        connecting.stay(connection, Progress(), ours=new)
        steps.withdraw(connection, destination)
