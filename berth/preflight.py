"""What is looked at before anything starts: each thing that is wrong is one sentence and its remedy."""

from collections.abc import Callable
from pathlib import Path

from berth import fitting
from berth.deployment import Deployment, device_file
from berth.errors import Exit, Problem
from berth.host import hub, ports
from berth.paths import shown
from berth.runtimes import Runtime
from engine import devices, names, settings
from engine.decisions import Situation
from engine.fit import refusal


def problems(deployment: Deployment, runtime: Runtime) -> list[Problem]:
    """Everything that stands in the way of this deployment in this runtime, device first."""
    checks: list[Callable[[], list[Problem]]] = [lambda: runtime.problems(deployment)]
    if runtime.local:
        service = [lambda: service_problems(deployment), lambda: port_problems(deployment)]
        checks = [lambda: device_problems(deployment), *checks, *service]
    return [problem for check in checks for problem in check()]


def service_problems(deployment: Deployment, address: str = "") -> list[Problem]:
    """What the service would refuse: a bad value, or to be reached by other machines without a key.

    `address` is where it listens, if not where the settings say.
    """
    from llm_service.config.loading import SettingsError, load

    given = {name: value for name, value in deployment.environ.items() if name.startswith("LLM_")}
    where = dict.fromkeys(("LLM_USVC_HOST", "BIND_ADDR"), address or deployment.address)
    try:
        load({**given, **where, "LLM_VLLM_ENDPOINT": ""})
    except SettingsError as error:
        return [Problem(deployment.placed(sentence.rstrip(".")), _inside(hint)) for sentence, hint in error.problems]
    return []


def _inside(sentence: str) -> str:
    """A sentence as the part of one that a hint is here; a setting's name keeps its capitals."""
    begins_with_a_word = sentence[1:2].islower()
    return (sentence[0].lower() + sentence[1:] if begins_with_a_word else sentence).rstrip(".")


def device_problems(deployment: Deployment) -> list[Problem]:
    """The device is there, and its driver is new enough for the image."""
    module = devices.load(deployment.device)
    if module.detect() is None:
        return [_no_device(deployment)]
    found: list[Problem] = module.preflight(Situation(deployment.environ, {}, deployment.model))
    return found


def fit_problems(deployment: Deployment, runtime: Runtime) -> list[Problem]:
    """What cannot fit into this machine's cards or memory; nothing where the engine runs elsewhere, or is forced."""
    if not runtime.local or not deployment.model:
        return []
    model = settings.model_path(deployment.model)
    situation = Situation(deployment.environ, fitting.values_of(deployment), model)
    return refusal.heeded(situation, deployment.device, deployment.environ)


def _no_device(deployment: Deployment) -> Problem:
    here, why = next((name, found.why) for name, found in devices.detect().items())
    file = shown(device_file(deployment.device, deployment.root))
    return Problem(
        f"{file} is for {deployment.device}, and this machine has none",
        f"use --device {here} (found here: {why}), or install the driver; scripts/berth doctor says more",
        Exit.MISSING_PREREQUISITE,
    )


def port_problems(deployment: Deployment) -> list[Problem]:
    """Both ports are free on this machine, and are not the same."""
    wanted = (
        (deployment.address, deployment.service_port, "LLM_USVC_PORT"),
        ("127.0.0.1", deployment.engine_port, names.PORT),
    )
    if wanted[0][1] == wanted[1][1]:
        return [
            Problem(
                f"LLM_USVC_PORT and {names.PORT} are both {wanted[0][1]}", "give the service and the engine a port each"
            )
        ]
    return [problem for address, port, name in wanted if (problem := _port_problem(address, port, name))]


def _port_problem(address: str, port: int, name: str) -> Problem | None:
    try:
        if ports.is_free(address, port):
            return None
    except (OSError, OverflowError) as error:
        return Problem(
            f"BIND_ADDR={address}: this machine cannot listen there ({error})",
            "use 127.0.0.1 for this machine alone, or 0.0.0.0 for every network it is on",
        )
    if (holder := ports.holder(port)) is None:
        if port < 1024:
            return Problem(f"port {port} needs root", f"set {name} to a port from 1024 up", Exit.MISSING_PREREQUISITE)
        return Problem(f"port {port} is in use", f"set {name} to another port", Exit.FAILED)
    who = f"{holder.name} (pid {holder.pid})" if holder.pid else holder.name
    return Problem(f"port {port} is in use by {who}", f"stop it, or set {name} to another port", Exit.FAILED)


def is_local_model(deployment: Deployment) -> bool:
    """Whether no hub is needed: the demo model, a folder or file, or a place in an object store."""
    model = deployment.model
    elsewhere = "://" in model or model.startswith(("/", "./", "../", "~"))
    return elsewhere or model in ("", names.DEMO) or Path(model).is_dir()


def ask_hub(deployment: Deployment) -> hub.Answer | None:
    """What the hub says about the model; None where no hub is needed, because the model is a folder or built in."""
    return None if is_local_model(deployment) else hub.ask(deployment.model, deployment.environ)


def hub_problems(deployment: Deployment, runtime: Runtime, answer: hub.Answer) -> list[Problem]:
    """Why the model cannot be had from the hub: no answer, no such model for this user, no disk for it."""
    model, line = deployment.model, deployment.where(names.MODEL)
    if not answer.reachable:
        return [
            Problem(
                f"{line}{model} is not in the cache, and no model hub can be reached ({answer.why})",
                f"check the network or HF_ENDPOINT, give a folder, or set {names.MODEL}={names.DEMO} (built in)",
                Exit.MISSING_PREREQUISITE,
            )
        ]
    if answer.status in (401, 403, 404) and not runtime.has_model(deployment):
        return [
            Problem(
                f"{line}the model hub shows no model {model} (HTTP {answer.status})",
                f"check {names.MODEL}; a private or gated model needs HF_TOKEN in the shell or env/local.env",
            )
        ]
    free = runtime.free_bytes(deployment)
    if answer.size and free is not None and free < answer.size and not runtime.has_model(deployment):
        return [
            Problem(
                f"{model} needs {answer.size / 1e9:.1f} GB of disk; {free / 1e9:.1f} GB are free for the cache",
                "free some space, or set BERTH_CACHE to a directory on a larger disk",
                Exit.MISSING_PREREQUISITE,
            )
        ]
    return []
