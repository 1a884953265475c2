"""Where it runs: an environment of its own, a container, or a Slurm job. Each is the commands that do it."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from berth import images, package_sources, processplan
from berth.errors import BerthError, Exit, failed
from berth.host.installing import for_scripts, reason, run_logged
from berth.paths import ROOT, RUN, STATE, from_root, in_root, shown
from berth.progress import Progress
from berth.quantizing.plan import Plan
from berth.runtimes import Request
from berth.runtimes.slurm import Runtime as Slurm
from berth.slurm import submit
from engine import credentials, names
from engine.messages import mask
from engine.phases import INSTALLING

QUANTIZING, BUILDING = "quantizing", "building the image"
VENV = STATE / "quantize"
INSTALL = ROOT / "engine" / "quantize" / "install.sh"
NAMES = ("native", "compose", "slurm")


@dataclass(frozen=True)
class Step:
    """One command; `environ` is what it adds to the shell's."""

    name: str
    argv: list[str]
    environ: Mapping[str, str] = field(default_factory=dict)

    def line(self, secrets: tuple[str, ...]) -> str:
        """As a person would type it, secrets masked."""
        given = [f"{name}={value}" for name, value in self.environ.items()]
        return mask(in_root(shlex.join([*(["env", *given] if given else []), *self.argv])), secrets)


def steps(plan: Plan, runtime: str, request: Request) -> list[Step]:
    """The commands, in their order. Raises BerthError for what cannot run there."""
    if runtime == "slurm":
        return _slurm(plan, request)
    request.only_here(runtime)
    if runtime == "compose":
        return _compose(plan)
    if runtime != "native":
        raise failed(f"{runtime}: no such runtime", f"one of {', '.join(NAMES)}", Exit.BAD_SETTING)
    return _native(plan)


def default_runtime(plan: Plan) -> str:
    """Gaudi's software is in its image alone; all else is quickest without one."""
    return "compose" if plan.for_gaudi else "native"


def _native(plan: Plan) -> list[Step]:
    if plan.for_gaudi:
        hint = "use --runtime compose, or --runtime slurm"
        raise failed("fp8-inc is calibrated in the image that serves", hint, Exit.BAD_SETTING)
    kind = "cuda" if plan.deployment.device == "cuda" else "cpu"
    python = [str(VENV / "bin" / "python"), "-P", *plan.compress()]
    return [
        Step(INSTALLING.replace("vLLM", "llm-compressor"), [str(INSTALL), kind, str(VENV)]),
        Step(QUANTIZING, python, {"PYTHONNOUSERSITE": "1"}),
    ]


def _compose(plan: Plan) -> list[Step]:
    deployment = plan.deployment
    files = deployment.value("COMPOSE_FILE")
    compose = ["docker", "compose", *(word for file in deployment.files for word in ("--env-file", from_root(file)))]
    run = [*compose, "run", "--rm", "-T"]
    if plan.for_gaudi:
        trust = {"FP8_TRUST_PICKLE": "true"} if plan.trust_pickle else {}
        given = {
            names.MODEL: plan.deployment.model,
            "FP8_DATASET_PATH": str(plan.data),
            "FP8_SAMPLES": str(plan.samples),
            **trust,
        }
        return [Step(QUANTIZING, [*run, "engine"], {"COMPOSE_FILE": f"{files}:compose/quantize.yaml", **given})]
    assert plan.to
    environ = {"COMPOSE_FILE": f"{files}:compose/compress.yaml", "LLM_DEVICE": deployment.device}
    mounts = [f"{plan.to.parent}:{plan.to.parent}"]
    mounts += [f"{plan.data}:{plan.data}:ro"] if plan.data else []
    mounts += [f"{plan.model}:{plan.model}:ro"] if plan.model.startswith("/") else []
    # The folder is the caller's, and so is what is written there; root's is lent to the image's own user.
    user = [] if os.getuid() == 0 else ["--user", f"{os.getuid()}:0"]
    volumes = [word for mount in mounts for word in ("--volume", mount)]
    return [
        Step(BUILDING, [*compose, "build", "engine"], environ),
        Step(QUANTIZING, [*run, *user, *volumes, "engine", "python", "-P", *plan.compress()], environ),
    ]


def _slurm(plan: Plan, request: Request) -> list[Step]:
    runtime = Slurm(request)
    if problem := runtime.unavailable():
        raise BerthError(problem)
    if runtime.store.site.login:
        hint = f"log in to {runtime.store.site.login}, and run it in a checkout there"
        raise failed("berth quantize submits jobs from the login node alone", hint, Exit.BAD_SETTING)
    job = submit.plan(plan.deployment, request, runtime.store)
    options = [word for word in job.options if not word.startswith(("--chdir=", "--output="))]
    site = ["--site", str(runtime.store.site.file)] if runtime.store.site.file else []
    files = [from_root(file) for file in plan.deployment.files]
    told = [f"--scheme={plan.scheme}", f"--samples={plan.samples}", f"--length={plan.length}"]
    told += [f"--to={plan.to}"] if plan.to else []
    told += [f"--data={plan.data}"] if plan.data else []
    told += ["--trust-pickle"] if plan.trust_pickle else []
    argv = ["sbatch", "--parsable", *options, "apptainer/quantize.sbatch", *site, *told, *files]
    return [Step("submitting", argv, {"LLM_VLLM_MODEL_NAME": plan.model})]


def lines(plan: Plan, found: list[Step]) -> list[str]:
    """What a dry run prints."""
    return [step.line(credentials.secrets(plan.deployment.environ)) for step in found]


def run(plan: Plan, runtime: str, found: list[Step], progress: Progress) -> str:
    """Run the commands; the last words of the last one. Raises BerthError with a command's own sentence."""
    RUN.mkdir(parents=True, exist_ok=True)
    if runtime == "compose" and plan.to:
        _lend(plan.to.parent)
    log = RUN / "quantize.log"
    for step in found:
        environ = {**_environ(plan, runtime), **step.environ}
        if code := run_logged(step.argv, environ, log, progress, step.name):
            sentence, hint = reason(log.read_text(errors="replace"))
            known = Exit(code) if code in (Exit.BAD_SETTING, Exit.MISSING_PREREQUISITE) else Exit.FAILED
            raise failed(sentence or f"{step.name} failed with exit code {code}", hint or f"see {shown(log)}", known)
    said = log.read_text(errors="replace").strip().splitlines()
    return said[-1] if said else ""


def _environ(plan: Plan, runtime: str) -> dict[str, str]:
    """The shell's for Compose and sbatch, which read the env files themselves; the settings for a plain process."""
    deployment = plan.deployment
    if runtime == "compose":
        return {**deployment.shell, **package_sources.for_build(deployment.environ)}
    if runtime == "slurm":
        return dict(deployment.shell)
    return for_scripts(processplan.environ(deployment))


def _lend(folder: Path) -> None:
    """Root's folder is written to by the image's own user. Raises BerthError where that cannot be."""
    fresh = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() != 0:
        return
    if fresh:
        os.chown(folder, images.UID, 0)
    state = folder.stat()
    if state.st_uid != images.UID and not state.st_mode & 0o002 and not (state.st_gid == 0 and state.st_mode & 0o020):
        hint = f"name a folder in a new one, or let user {images.UID} or group 0 write to it"
        raise failed(f"{shown(folder)}: the container's user cannot write there", hint, Exit.BAD_SETTING)
