"""A batch as a plain process: the engine that `berth up --runtime native` installs."""

import subprocess
from pathlib import Path

from berth import processplan
from berth.batch.local import Program, signal_it
from berth.deployment import Deployment
from berth.host.installing import install_engine
from berth.paths import ROOT
from berth.progress import Progress
from berth.runtimes import ENGINE
from engine import names

name = "native"


def program(deployment: Deployment, folder: Path, words: list[str]) -> Program:
    """The engine's Python with the environment that `up` would give it; nobody asks for a phase file."""
    child = next(each for each in processplan.plan(deployment)["children"] if each["name"] == ENGINE)
    added = {**child["environ"], names.PHASE_FILE: None}
    merged = {**processplan.environ(deployment), **{key: value for key, value in added.items() if value is not None}}
    environ = {key: value for key, value in merged.items() if added.get(key, "") is not None}
    given = {key: setting.value for key, setting in deployment.settings.items()}
    argv = [child["argv"][0], "-P", *(word.format(folder=folder) for word in words)]
    return Program(argv, ROOT, environ, {**given, **{k: v for k, v in added.items() if v}})


def prepare(deployment: Deployment, folder: Path, progress: Progress) -> None:
    """Install vLLM if need be."""
    install_engine(deployment.device, deployment.environ, progress)


def interrupt(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    """A signal to the engine."""
    signal_it(process)
