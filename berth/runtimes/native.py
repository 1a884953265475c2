"""Plain processes: the engine and the service as children of a supervisor, for machines without a container runtime."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from berth import children, logfiles, processplan, staying, waiting
from berth.deployment import Deployment
from berth.errors import Exit, Problem, failed
from berth.host import hub, machine, processes
from berth.host.installing import engine_directory, install_command, install_engine
from berth.paths import RUN, shown
from berth.progress import Progress
from berth.runtimes import ENGINE, NOTHING, SERVICE, Endpoint, Part, Ready, Request, Status
from engine import catalog, credentials, names, settings
from engine.messages import mask

LOCK, PLAN, STATE_FILE = RUN / "lock", RUN / "plan.json", RUN / "state.json"
SUPERVISOR_LOG = RUN / "supervisor.log"
STARTING_S = 15  # for the supervisor to take its lock
LEFTOVERS_GRACE_S = 10


class Runtime:
    """Processes of this user, with state and logs in .berth/run/."""

    name = "native"
    local = True

    def __init__(self, request: Request = NOTHING) -> None:
        request.only_here(self.name)
        self._supervisor: subprocess.Popen[bytes] | None = None

    def unavailable(self) -> Problem | None:
        """Every machine can run processes."""
        return None

    def problems(self, deployment: Deployment) -> list[Problem]:
        """The cache must be writable."""
        cache = hub.cache(processplan.environ(deployment))
        if machine.writable(cache):
            return []
        return [
            Problem(
                f"the model cache {cache} is not writable",
                "set BERTH_CACHE to a directory of yours, for example in env/local.env",
                Exit.MISSING_PREREQUISITE,
            )
        ]

    def commands(self, deployment: Deployment) -> list[str]:
        """How vLLM is installed, and the two processes with the settings that the files add to the shell's."""
        lines = [shlex.join(install_command(deployment.device))]
        for child in processplan.plan(deployment)["children"]:
            added = {name: setting.value for name, setting in deployment.settings.items()}
            added |= {name: value for name, value in child["environ"].items() if value is not None}
            words = ["env", *(f"{name}={value}" for name, value in added.items() if value), *child["argv"]]
            lines.append(f"cd {shlex.quote(child['cwd'])} && {shlex.join(words)}")
        secrets = credentials.secrets(deployment.environ)
        return [mask(line, secrets) for line in lines]

    def render(self, deployment: Deployment) -> str:
        """The command that the launcher makes of the settings."""
        environ = {**processplan.environ(deployment), names.HOST: "127.0.0.1"}
        known = catalog.load(deployment.device, environ)
        prefix = str(engine_directory(deployment.device))
        command = settings.command(environ, known, deployment.device, prefix=prefix)
        secrets = credentials.secrets(environ)
        decisions = [f"# {mask(str(decision), secrets)}" for decision in command.decisions]
        return "\n".join([*decisions, mask(shlex.join(command.argv), secrets)])

    def start(self, deployment: Deployment, progress: Progress, attached: bool) -> None:
        """Install vLLM if need be, then start the supervisor. Raises BerthError, with nothing left running."""
        with processes.exclusive(RUN / "starting"):  # of two at once, the second finds the first one running
            self._end_leftovers()
            install_engine(deployment.device, deployment.environ, progress)
            for part in (ENGINE, SERVICE):
                log = RUN / f"{part}.log"
                if log.exists():
                    log.replace(RUN / f"{part}.log.1")
            PLAN.write_text(json.dumps(processplan.plan(deployment), indent=1))
            STATE_FILE.unlink(missing_ok=True)
            try:
                self._supervisor = self._launch(deployment, attached)
                self._await_state(self._supervisor)
            except BaseException:
                self.stop(progress)
                raise

    def _launch(self, deployment: Deployment, attached: bool) -> "subprocess.Popen[bytes]":
        parent = os.getpid()
        with open(SUPERVISOR_LOG, "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "berth.supervisor", str(PLAN)],
                env=processplan.environ(deployment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=(lambda: children.die_with_parent(parent)) if attached else None,
            )

    def _await_state(self, supervisor: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + STARTING_S
        while not STATE_FILE.exists():
            if supervisor.poll() is not None or time.monotonic() > deadline:
                said = SUPERVISOR_LOG.read_text(errors="replace").strip().splitlines()
                raise failed(
                    "the supervisor did not start" + (f": {said[-1]}" if said else ""),
                    f"see {shown(SUPERVISOR_LOG)}; scripts/berth status says what runs",
                )
            time.sleep(0.05)

    def wait(self, deployment: Deployment, progress: Progress, timeout_s: float, attached: bool) -> Ready:
        """Until the service says that the engine is ready."""
        return waiting.ready(self, deployment, progress, timeout_s)

    def stay(self, progress: Progress, tell: Callable[[], None], show_logs: bool) -> None:
        """Show the logs; Ctrl-C stops what was started."""
        staying.stay(self, progress, tell, show_logs)

    def failure(self) -> Problem | None:
        """The supervisor gives up when a child ends before it was ever ready."""
        state = self._state()
        if state.get("state") == "failed":
            return Problem(state["reason"], "the whole log: scripts/berth logs engine", Exit(state["exit_code"]))
        if not processes.is_held(LOCK):
            return Problem("the supervisor is gone", f"see {shown(SUPERVISOR_LOG)}")
        return None

    def downloaded(self, deployment: Deployment) -> int | None:
        """Bytes in the hub cache."""
        return hub.downloaded(deployment.model, hub.cache(processplan.environ(deployment)))

    def has_model(self, deployment: Deployment) -> bool:
        """Whether the hub cache holds the model."""
        return hub.is_cached(deployment.model, hub.cache(processplan.environ(deployment)))

    def free_bytes(self, deployment: Deployment) -> int | None:
        """Free space where the hub cache is."""
        return machine.free_bytes(hub.cache(processplan.environ(deployment)))

    def logs(self, part: str | None, follow: bool, tail: int | None) -> Iterator[str]:
        """The log files; with both parts, each line begins with its part's name."""
        parts = [part] if part else [ENGINE, SERVICE]
        for name, line in logfiles.follow({name: RUN / f"{name}.log" for name in parts}, tail, follow):
            yield line if part else f"{name:6} | {line}"

    def stop_commands(self) -> list[str]:
        """A signal to the supervisor."""
        return [f"kill -TERM {self._state()['pid']}"] if processes.is_held(LOCK) else []

    def stop(self, progress: Progress) -> bool:
        """SIGTERM to the supervisor, which stops the engine, then the service."""
        own = self._supervisor if self._supervisor and self._supervisor.poll() is None else None
        if own is None and not processes.is_held(LOCK):
            return self._end_leftovers()
        pid = own.pid if own else int(self._state()["pid"])
        _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + processplan.ENGINE_GRACE_S + processplan.SERVICE_GRACE_S + STARTING_S
        # The lock is given back a moment before the process ends.
        while processes.is_held(LOCK) or (own and own.poll() is None) or pid in processes.members(pid):
            if time.monotonic() > deadline:
                _signal(pid, signal.SIGKILL)
                self._end_leftovers()
                break
            time.sleep(0.1)
        return True

    def status(self, deployment: Deployment | None = None) -> Status:
        """From the state file, believed only while the lock is held."""
        state, about = self._state(), self._about()
        held = processes.is_held(LOCK)
        if not state or not about:
            return Status(self.name, "stopped")
        parts = tuple(Part(name, *_described(facts)) for name, facts in state["children"].items()) if held else ()
        overall = state["state"] if not held else _overall(state)
        return Status(
            self.name,
            overall if held or overall == "failed" else "stopped",
            about["device"],
            about["model"],
            tuple(about["files"]),
            Endpoint(about["service"], about["engine"], certificate=about.get("certificate", "")) if held else None,
            parts,
            {"supervisor": str(state["pid"]), "logs": shown(RUN)} if held else {},
        )

    def _end_leftovers(self) -> bool:
        """End children whose supervisor was killed, if they have not noticed themselves."""
        if processes.is_held(LOCK):
            raise failed("Berth is already running here", "stop it with: scripts/berth down")
        state = self._state()
        if state.get("boot") != processes.boot():
            return False
        facts = [child for child in state.get("children", {}).values() if child.get("pid")]
        return processes.end_sessions([(child["pid"], child["born"]) for child in facts], LEFTOVERS_GRACE_S) > 0

    def _state(self) -> dict[str, Any]:
        return _json(STATE_FILE)

    def _about(self) -> dict[str, Any]:
        about: dict[str, Any] = _json(PLAN).get("deployment", {})
        return about


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _json(file: Path) -> dict[str, Any]:
    """The object in a file, or nothing: a file that is missing or torn says nothing."""
    try:
        read = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _overall(state: dict[str, Any]) -> str:
    if state["state"] != "starting":
        return str(state["state"])
    ready = all(facts["ready"] for facts in state["children"].values())
    return "running" if ready else "starting"


def _described(facts: dict[str, Any]) -> tuple[str, str]:
    """One word, and what else there is to say about a child."""
    said = [f"pid {facts['pid']}"] if facts["pid"] else []
    if facts["restarts"]:
        said.append(f"{facts['restarts']} restarts, last ended with {facts['last_exit']}")
    if facts["retry_at"]:
        said.append(f"next start in {max(0, facts['retry_at'] - time.time()):.0f} s")
    return facts["state"], ", ".join(said)
