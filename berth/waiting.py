"""Waits until a chat request would be answered, and shows what the engine is doing meanwhile."""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from berth import trust
from berth.deployment import Deployment
from berth.errors import BerthError, Exit, Problem, failed
from berth.host import hub
from berth.host.installing import reason
from berth.paths import RUN, shown
from berth.preflight import is_local_model
from berth.progress import Progress
from berth.runtimes import ENGINE, Endpoint, Ready, Runtime, local_url
from berth.slurm.explain import explain
from berth.slurm.failures import EVERYWHERE
from engine.growing import split
from engine.phases import DOWNLOADING, READY, STARTING, Phase, phase_of

POLL_S = 0.5
DOWNLOAD_POLL_S = 2.0
PROBE_TIMEOUT_S = 5.0
FAILED_LOG = RUN / "failed-engine.log"
LOG_END = 400  # lines; three processes write a traceback each when one of them fails

# What the other processes say when one has failed: true, and no help.
_SECOND_HAND = re.compile(r"root cause above|See stack trace|WorkerProc initialization failed|EngineDeadError")


class HasLogs(Protocol):
    """Whatever has an engine's log."""

    def logs(self, part: str | None, follow: bool, tail: int | None) -> Iterator[str]:
        """As `Runtime` has it."""


class EngineLog:
    """Reads the engine's log in a thread and keeps the last phase that it announced."""

    def __init__(self, runtime: HasLogs) -> None:
        self.phase = Phase(STARTING)
        self._runtime = runtime
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for line in self._runtime.logs(ENGINE, follow=True, tail=None):
                if phase := phase_of(line):
                    self.phase = phase
        except Exception:  # noqa: S110 - the log only decorates: a container that goes away must not end the wait
            pass


def service_state(where: Endpoint) -> dict[str, Any]:
    """What the service says of the engine: {"state": "ready", …}. Unreachable: {"state": "starting"}.

    A service that asks for a key tells nothing without one; then the engine is asked, on this machine.
    """
    import httpx

    try:
        # A proxy in the environment is not for this machine.
        verify = trust.context(where.certificate)
        answer = httpx.get(f"{where.service}/ready", timeout=PROBE_TIMEOUT_S, trust_env=False, verify=verify)
        if answer.status_code == 401:
            return _engine_state(where.engine)
        said = answer.json()
    except (httpx.HTTPError, ValueError):
        return {"state": "starting", "detail": "the service does not answer yet", "models": []}
    return said if isinstance(said, dict) else {"state": "starting"}


def _engine_state(url: str) -> dict[str, Any]:
    import httpx

    try:
        answer = httpx.get(f"{url}/health", timeout=PROBE_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return {"state": "starting", "detail": "the engine does not answer yet", "models": []}
    # vLLM answers this path with or without a key, and only once the model is loaded.
    healthy = answer.status_code == 200
    return {"state": "ready" if healthy else "failed", "detail": "the service asks for a key", "models": []}


def ready(runtime: Runtime, deployment: Deployment, progress: Progress, timeout_s: float) -> Ready:
    """Wait for a deployment on this machine, and say where it answers. Raises BerthError as `until_ready` does."""
    service = local_url(deployment.address, deployment.service_port, tls=bool(deployment.certificate))
    engine = local_url("127.0.0.1", deployment.engine_port)
    where = Endpoint(service, engine, certificate=deployment.certificate)
    models = until_ready(runtime, deployment, where, progress, timeout_s)
    return Ready(where, tuple(models), locked=bool(deployment.value("LLM_API_KEYS_FILE")))


def until_ready(
    runtime: Runtime, deployment: Deployment, where: Endpoint, progress: Progress, timeout_s: float
) -> list[str]:
    """Return the names of the served models once a chat request would be answered.

    Raises BerthError with the engine's own words (exit code of the launcher, else 1) when what was started has
    ended, and with exit code 4 when `timeout_s` seconds have passed.
    """
    log, began, asked = EngineLog(runtime), time.monotonic(), 0.0
    size: int | None = None
    missing = not is_local_model(deployment) and not runtime.has_model(deployment)
    if missing:
        size = hub.ask(deployment.model, deployment.environ).size
    while True:
        state = service_state(where)
        if state.get("state") == "ready":
            progress.show(Phase(READY))
            return [str(name) for name in state.get("models", [])]
        if problem := runtime.failure():
            raise BerthError(explained(runtime, problem))
        if time.monotonic() - began > timeout_s:
            raise failed(
                f"not ready within {timeout_s:.0f} s; the last phase was: {log.phase.name}",
                "give it longer with --timeout SECONDS; what is downloaded and compiled is kept",
                Exit.NOT_READY,
            )
        phase = log.phase
        if missing and phase.name == STARTING and time.monotonic() - asked > DOWNLOAD_POLL_S:
            asked = time.monotonic()
            phase = _download_phase(runtime, deployment, size) or phase
            log.phase = phase if log.phase.name == STARTING else log.phase
        progress.show(phase)
        time.sleep(POLL_S)


def _download_phase(runtime: Runtime, deployment: Deployment, size: int | None) -> Phase | None:
    here = runtime.downloaded(deployment)
    if not here:
        return None
    if size:
        return Phase(DOWNLOADING, min(1.0, here / size), f"{_gb(here)} of {_gb(size)}")
    return Phase(DOWNLOADING, None, _gb(here))


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def explained(runtime: HasLogs, problem: Problem) -> Problem:
    """The problem in the engine's own words: the launcher's refusal, else the last error that vLLM's log holds."""
    lines = list(runtime.logs(ENGINE, follow=False, tail=None))
    # Kept, because a container's log goes with the container.
    RUN.mkdir(parents=True, exist_ok=True)
    FAILED_LOG.write_text("".join(f"{line}\n" for line in lines))
    problem = replace(problem, hint=f"the whole log: {shown(FAILED_LOG)}")
    lines = lines[-LOG_END:]
    sentence, hint = reason("\n".join(lines))
    if sentence:
        return Problem(sentence, hint or problem.hint, problem.exit_code)
    if known := explain(lines, EVERYWHERE):
        return Problem(known.sentence, f"{known.hint}; {problem.hint}", problem.exit_code)
    errors = [place for place, line in enumerate(lines) if _is_error(line) and not _SECOND_HAND.search(line)]
    if errors:
        return Problem(f"{problem.sentence}: {_cause(lines, errors[-1])}", problem.hint, problem.exit_code)
    return Problem(
        problem.sentence + (f"; last line: {_bare(lines[-1])}" if lines else ""), problem.hint, problem.exit_code
    )


def _is_error(line: str) -> bool:
    """The line that ends a Python traceback, such as `ValueError: …`."""
    word = _bare(line).partition(":")[0]
    return word.rpartition(".")[2].endswith(("Error", "Exception")) and " " not in word


def _cause(lines: Sequence[str], place: int) -> str:
    """The line that ends a traceback. Pydantic says on the next one what is wrong, at length: its first sentence."""
    said = _bare(lines[place])
    if "validation error" in said and place + 1 < len(lines):
        return _bare(lines[place + 1]).partition(". ")[0]
    return said


def _bare(line: str) -> str:
    """A log line without the process, level, time and place that vLLM puts before it."""
    text = split(line)[-1] if split(line) else ""
    if "] " in text and text.startswith("("):
        text = text.partition("] ")[2]
    return text.strip()[:300]
