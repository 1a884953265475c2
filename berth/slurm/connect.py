"""`berth connect`: an address on this machine that answers for a deployment, whichever job serves it."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from berth import children
from berth.errors import BerthError, Exit, failed
from berth.host import processes
from berth.paths import shown
from berth.progress import Progress
from berth.slurm import door, queue
from berth.slurm.connections import Connection, close, directory, end_leftovers, read_state
from berth.slurm.site import Site
from berth.slurm.store import Store
from berth.slurm.tunnel import LOOPBACK
from engine.phases import READY, STARTING, Phase

STARTING_S = 15  # for the keeper to write its first state: one look through SSH
POLL_S = 0.2
PROBE_S = 5.0


def open_door(store: Store, name: str, port: int | None, attached: bool, progress: Progress) -> tuple[Connection, bool]:
    """Connect and wait until a request would be answered; the second value says whether it is new.

    `attached` ties it to the life of this process. Whatever ends it early leaves nothing running. Raises BerthError:
    exit code 2 for an unknown name, 3 for a login node out of reach, 1 for a deployment without job or not reached.
    """
    place = directory(name)
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        (place / "endpoints").mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise failed(
            f"{place} cannot be made: {error.strerror}",
            "run Berth from a checkout of your own",
            Exit.MISSING_PREREQUISITE,
        ) from error
    with processes.exclusive(place / "starting"):
        new = not processes.is_held(place / "lock")
        if new:
            key = check(store, name)
            end_leftovers(place)
            _launch(place, store, key, door.port(place, port), attached)
    try:
        return _await_ready(name, place, progress), new
    except BaseException:
        if new:
            close(name)
        raise


def check(store: Store, name: str) -> str:
    """The deployment's key, if there is anything to connect to. Raises BerthError."""
    if name not in store.names():
        known = ", ".join(store.names()) or "none yet"
        raise failed(f"{name}: no such deployment", f"deployments: {known}", Exit.BAD_SETTING)
    found = store.endpoints(name)
    deployed = store.load(name)
    ids = list(deployed.jobs) if deployed else sorted({each.job for each in found if each.job})
    now = float(store.cluster.run(["date", "+%s"]).stdout)
    if not any(each.alive(now) for each in found):
        jobs = [job for job in queue.jobs(store.cluster, ids) if not job.over]
        last = found[-1] if found else None
        if not jobs:
            how = f": job {last.run} {last.state}{f' ({last.reason})' if last.reason else ''}" if last else ""
            raise failed(f"{name} has no job any more{how}", "start it again: scripts/berth up --runtime slurm")
        running = next((job for job in jobs if job.running), None)
        if last and last.stale(now) and running and last.run == running.id:
            raise failed(
                f"job {last.run} has been silent for {now - last.heartbeat:.0f} s: its endpoint file is stale",
                f"what it does: scripts/berth logs; to end it: scripts/berth stop {name}",
            )
    key = store.cluster.read(f"{store.deployment_dir(name)}/api_key")
    if not key or not key.strip():
        raise failed(f"{name} has no key file", f"its job writes {store.deployment_dir(name)}/api_key when it starts")
    return key.decode().strip()


def only_one(store: Store) -> str:
    """The deployment that has a living job, when the user named none. Raises BerthError (exit code 2)."""
    now = float(store.cluster.run(["date", "+%s"]).stdout)
    names = store.names()
    live = [name for name in names if any(each.alive(now) for each in store.endpoints(name))]
    if not live:
        queued = {job.id.partition("_")[0] for job in queue.jobs(store.cluster)}
        live = [name for name in names if (known := store.load(name)) and queued & set(known.jobs)]
    if len(live) != 1:
        said = f"{len(live)} deployments have a job" if live else "no deployment has a job"
        hint = f"name one: {', '.join(live)}" if live else "start one: scripts/berth up --runtime slurm"
        raise failed(said, hint, Exit.BAD_SETTING if live else Exit.FAILED)
    return live[0]


def _launch(place: Path, store: Store, key: str, port: int, attached: bool) -> None:
    door.keep_key(place, key)
    site = {each.name: getattr(store.site, each.name) for each in dataclasses.fields(Site)}
    site.update(file=None, lines={})
    plan = {"name": place.parent.name, "site": site, "port": port}
    (place / "plan.json").write_text(json.dumps(plan))
    for file in [place / "state.json", *place.glob("endpoints/*"), *place.glob("publish/*"), *place.glob("*.log")]:
        file.unlink(missing_ok=True)
    parent = os.getpid()
    with open(place / "keeper.log", "wb") as log:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "berth.slurm.keeper", str(place)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=(lambda: children.die_with_parent(parent)) if attached else None,
        )
    deadline = time.monotonic() + STARTING_S
    while not (place / "state.json").exists():
        if time.monotonic() > deadline:
            lines = (place / "keeper.log").read_text(errors="replace").strip().splitlines()
            raise failed(f"the connection did not start: {(lines or ['no message'])[-1]}", f"see {shown(place)}")
        time.sleep(0.05)


def _await_ready(name: str, place: Path, progress: Progress) -> Connection:
    """Wait until the local door would answer a request, and say what it waits for."""
    while True:
        state = read_state(place)
        problem = _problem(state) if state else None
        if problem or not processes.is_held(place / "lock"):
            raise problem or failed("the connection ended", f"see {shown(place / 'keeper.log')}")
        url = f"http://{LOOPBACK}:{state['port']}"
        if state["state"] == "ready" and (models := _models(url, place)):
            progress.show(Phase(READY))
            return Connection(name, url, place, models[0])
        progress.show(_phase(state))
        time.sleep(POLL_S)


def _phase(state: dict[str, Any]) -> Phase:
    """What is being waited for, as far as the runs say."""
    for run in state["runs"]:
        phase = run.get("phase") or {}
        if run["state"] == "ready":
            return Phase("connecting", None, run["trouble"] or f"job {run['run']} on {run['node']}")
        return Phase(phase.get("name", STARTING), phase.get("fraction"), phase.get("detail", ""))
    return Phase("waiting for a job", None, state["trouble"])


def _problem(state: dict[str, Any]) -> BerthError | None:
    if state["state"] in ("ended", "failed") and state["reason"]:
        return failed(state["reason"], state["hint"])
    return None


def _models(url: str, place: Path) -> list[str]:
    """The models that the local door would answer for; none while it would not."""
    import httpx

    headers = {"Authorization": f"Bearer {(place / 'api_key').read_text().strip()}"}
    try:
        answer = httpx.get(f"{url}/ready", headers=headers, timeout=PROBE_S, trust_env=False)
        return [str(each) for each in answer.json()["models"]] if answer.status_code == 200 else []
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return []


def stay(connection: Connection, progress: Progress, ours: bool = True) -> None:
    """Say what happens to a connection until it ends; Ctrl-C closes what is ours. Raises BerthError if it failed."""
    said: dict[str, str] = {}
    try:
        while processes.is_held(connection.directory / "lock"):
            state = read_state(connection.directory)
            for key, text in _news(state):
                if said.get(key) != text:
                    said[key] = text
                    progress.say(text)
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        if not ours:
            return
        jobs = ", ".join(run["run"] for run in read_state(connection.directory).get("runs", []))
        close(connection.name)
        progress.say(
            f"closed; job {jobs} runs on. Back: scripts/berth connect {connection.name}; end it: "
            f"scripts/berth stop {connection.name}"
        )
        return
    state = read_state(connection.directory)
    if state.get("state") == "failed":
        raise _problem(state) or failed("the connection failed", f"see {shown(connection.directory)}")
    progress.say(state.get("reason") or "closed")


def _news(state: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if state.get("trouble"):
        yield "trouble", str(state["trouble"])
    for each in state.get("outlets", []):
        again = f"opened again, {each['opened_again']}×" if each["opened_again"] else ""  # noqa: RUF001
        if again or each["trouble"]:
            yield each["to"], f"reverse tunnel to {each['to']}: {each['trouble'] or again}"
    for run in state.get("runs", []):
        if run["reached"]:
            again = f" (tunnel opened again, {run['rebuilt']}×)" if run["rebuilt"] else ""  # noqa: RUF001
            yield run["run"], f"job {run['run']} on {run['node']}: {run['state']}{again}"
        elif run["state"] == "ready" and run["trouble"]:
            yield run["run"], f"job {run['run']} on {run['node']}: {run['trouble']}"
