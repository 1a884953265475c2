"""Carries a benchmark out, in a folder that this side and vLLM's share, and keeps the result."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from berth import children
from berth.batch import local, warming, work
from berth.bench import client, record
from berth.bench.asked import Load, Starts
from berth.bench.record import Record
from berth.bench.target import Target
from berth.deployment import Deployment
from berth.errors import Exit, failed
from berth.host.installing import reason, run_logged
from berth.paths import RUN, shown
from berth.progress import Progress
from berth.runtimes import Runtime
from engine import bench

ASKING = "asking"
LOG = RUN / "bench.log"
_WORDS = ["-m", "engine.bench", "{folder}"]


def serve(target: Target, runtime: Runtime | None, load: Load, progress: Progress) -> Record:
    """Ask a server. Raises BerthError where it refuses requests, or where vLLM's client fails."""
    with _folder() as folder:
        asking = client.of(target, runtime, folder)
        order = {**load.facts(), "kind": bench.SERVE, "url": asking.url, "insecure": target.insecure}
        _put(folder, bench.ORDER, json.dumps({**order, "model": target.model, "tokenizer": target.tokenizer}))
        if target.key:
            _put(folder, bench.KEY, target.key)
        try:
            asking.begin()
            code = run_logged(asking.argv, asking.environ, LOG, progress, f"{ASKING} the {target.part}")
        finally:
            asking.end()
        figures = _figures(folder, code, LOG)
        versions = {"vllm": target.vllm, **_client_version(folder)}
    if figures.get("failed") or not figures.get("completed"):
        raise failed(
            f"{figures.get('failed', 'all')} of {load.requests} requests failed",
            f"scripts/berth logs llm says why; the client's words are in {shown(LOG)}",
        )
    return record.new(bench.SERVE, target.part, _deployment(target, asking.about), versions, load.facts(), figures)


def startup(deployment: Deployment, runtime: Runtime, starts: Starts, progress: Progress) -> Record:
    """Start the engine of a deployment again and again, on this machine. Raises BerthError with its own reason."""
    place = warming.local_only(runtime)
    with _folder() as folder:
        _put(folder, bench.ORDER, json.dumps({**starts.facts(), "kind": bench.STARTUP}))
        deployment = work.check(deployment, runtime, progress)
        place.prepare(deployment, folder, progress)
        program = place.program(deployment, folder, _WORDS)
        code = local.run(program, place, folder, None, progress)
        figures = _figures(folder, code, folder / local.LOG)
        versions = _client_version(folder)
    about = {
        "runtime": runtime.name,
        "device": deployment.device,
        "model": deployment.model,
        "env_files": [shown(file) for file in deployment.files],
        "command": program.line(local.secrets_of(deployment)),
    }
    kept = {"vllm": versions.get("client_vllm", "")}
    return record.new(bench.STARTUP, "engine", about, kept, starts.facts(), figures)


def startup_command(deployment: Deployment, runtime: Runtime) -> str:
    """The exact command of a startup benchmark, secrets masked."""
    program = warming.local_only(runtime).program(deployment, RUN / "bench", _WORDS)
    return program.line(local.secrets_of(deployment))


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder of this run's own: two runs at once do not meet."""
    RUN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=RUN, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _put(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.touch(0o600)
    path.write_text(text, encoding="utf-8")


def _figures(folder: Path, code: int, log: Path) -> dict[str, Any]:
    """vLLM's result. Raises BerthError with the reason where there is none."""
    try:
        read: dict[str, Any] = json.loads((folder / bench.RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        read = {}
    if code == 0 and read:
        return read
    text = log.read_text(errors="replace")
    LOG.write_text(text) if log != LOG else None
    sentence, hint = reason(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    why = (
        sentence or f"vLLM's benchmark ended with {children.in_words(code)}: {lines[-1][:300] if lines else 'no word'}"
    )
    known = Exit(code) if code in (Exit.BAD_SETTING, Exit.MISSING_PREREQUISITE) else Exit.FAILED
    raise failed(why, hint or f"see {shown(LOG)}", known)


def _client_version(folder: Path) -> dict[str, str]:
    try:
        return {"client_vllm": str(json.loads((folder / "client.json").read_text())["vllm"])}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _deployment(target: Target, about: dict[str, Any]) -> dict[str, Any]:
    status = target.status
    if status is None:
        return {"url": target.url, "model": target.model}
    ours = {"runtime": status.runtime, "device": status.device, "model": status.model, "env_files": list(status.files)}
    return {**ours, **about}
