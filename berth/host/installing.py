"""Puts vLLM for a device into .berth/engine-<device>, by the script that the device's image uses too."""

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from berth import package_sources
from berth.errors import Exit, failed
from berth.host import processes
from berth.paths import ROOT, RUN, STATE, shown
from berth.progress import Progress
from engine.growing import Growing
from engine.phases import INSTALLING, Phase

POLL_S = 0.2
ENDING_S = 5.0
_GET_UV = ROOT / "scripts" / "lib" / "get_uv.py"


def engine_directory(device: str) -> Path:
    """The Python environment that holds vLLM for a device."""
    return STATE / f"engine-{device}"


def install_command(device: str) -> list[str]:
    """The script that installs vLLM for a device; it does nothing where all is up to date."""
    return [str(ROOT / "engine" / "install" / f"{device}.sh"), str(engine_directory(device))]


def install_engine(device: str, environ: Mapping[str, str], progress: Progress) -> None:
    """Make sure that vLLM for `device` is installed. Raises BerthError with the script's own words."""
    command = install_command(device)
    if not Path(command[0]).is_file():
        raise failed(
            f"Berth does not know how to install vLLM for {device} outside a container",
            "use --runtime compose",
            Exit.MISSING_PREREQUISITE,
        )
    progress.show(Phase(INSTALLING))
    environ = for_scripts(environ)
    RUN.mkdir(parents=True, exist_ok=True)
    log = RUN / f"install-{device}.log"
    code = run_logged(["bash", *command], environ, log, progress, INSTALLING)
    if code:
        sentence, hint = reason(log.read_text(errors="replace"))
        exit_code = Exit.MISSING_PREREQUISITE if code == Exit.MISSING_PREREQUISITE else Exit.FAILED
        raise failed(sentence or f"vLLM for {device} could not be installed", hint or f"see {shown(log)}", exit_code)


def for_scripts(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of an install script: uv, a Python, what pip was told of this site. Raises BerthError."""
    python = environ.get("UV_PYTHON") or str(Path(sys.executable).resolve())
    return {**environ, **package_sources.for_uv(environ), "UV": _uv(), "UV_PYTHON": python}


def run_logged(command: list[str], environ: Mapping[str, str], log: Path, progress: Progress, name: str) -> int:
    """Run to the end as the phase `name`, with the last `berth: …` line of the log; Ctrl-C ends all that it started."""
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        said, growing = "", Growing(log)
        while process.poll() is None:
            said = next((line[7:] for line in reversed(growing.lines()) if line.startswith("berth: ")), said)
            progress.show(Phase(name, None, said))
            time.sleep(POLL_S)
    except BaseException:
        processes.end_session(process.pid, ENDING_S)
        process.wait()
        raise
    return process.returncode


def reason(log: str) -> tuple[str, str]:
    """The last `berth: error:` and `berth: hint:` in a log, as far as there are any."""
    found = {"error": "", "hint": ""}
    for line in log.splitlines():
        for kind in found:
            if line.startswith(f"berth: {kind}: "):
                found[kind] = line.partition(f"{kind}: ")[2]
    return found["error"], found["hint"]


def _uv() -> str:
    done = subprocess.run([sys.executable, str(_GET_UV), str(STATE / "uv")], capture_output=True, text=True)
    if done.returncode:
        sentence, hint = reason(done.stderr)
        raise failed(
            sentence or "uv could not be installed", hint or "see scripts/lib/get_uv.py", Exit.MISSING_PREREQUISITE
        )
    return done.stdout.strip()
