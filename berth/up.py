"""`berth up`: read, check, start, show, and say how to talk to it and how to stop it."""

import json
import shlex
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berth import deployment as deployments
from berth import preflight, runtimes, waiting
from berth.deployment import Deployment
from berth.errors import BerthError, Exit, Problem, failed
from berth.progress import Progress
from berth.runtimes import Endpoint, Runtime, Status, local_url
from engine import names

FOLLOW_POLL_S = 0.5


@dataclass(frozen=True)
class Started:
    """A deployment that answers."""

    runtime: str
    device: str
    model: str
    endpoint: Endpoint

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "runtime": self.runtime,
            "device": self.device,
            "model": self.model,
            "endpoint": self.endpoint.service,
            "engine": self.endpoint.engine,
            "curl": curl(self.endpoint.service),
            "stop": "scripts/berth down",
        }

    def words(self, attached: bool) -> str:
        """What a person reads at the end of `berth up`."""
        return "\n".join(
            (
                "",
                f"{self.model} is ready at {self.endpoint.service} ({self.device}, {self.runtime}). Ask it something:",
                "",
                curl(self.endpoint.service),
                "",
                "  or talk to it:  scripts/berth chat",
                f"  stop it with:   {'Ctrl-C, or ' if attached else ''}scripts/berth down",
                "",
            )
        )


def curl(url: str) -> str:
    """The curl line, which works as printed."""
    body = json.dumps({"messages": [{"role": "user", "content": "What is Deep Learning?"}], "max_tokens": 128})
    return f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def plan(
    files: Sequence[Path], device: str | None, runtime: str | None, progress: Progress
) -> tuple[Deployment, Runtime]:
    """What is to be started and by which runtime. Raises BerthError for settings first, then for the runtime."""
    deployment = deployments.resolve(files, device)
    deployments.check_settings(deployment)
    chosen, why = runtimes.choose(runtime)
    progress.say(f"device {deployment.device} ({deployment.why_device}); runtime {chosen.name} ({why})")
    return deployment, chosen


def check(deployment: Deployment, runtime: Runtime, progress: Progress) -> Deployment:
    """Look at this machine. Where no hub answers: offline from the cache, else the demo model if the user named none.

    Raises BerthError with everything that stands in the way.
    """
    problems = preflight.problems(deployment, runtime)
    answer = preflight.ask_hub(deployment)
    if answer and not answer.reachable and runtime.has_model(deployment):
        progress.say(f"no model hub can be reached ({answer.why}): serving {deployment.model} from the cache")
        deployment = deployment.offline()
    elif answer and not answer.reachable and not deployment.model_named_by_user:
        progress.say(
            f"no model hub can be reached ({answer.why}) and {deployment.model} is not in the cache: "
            "serving the built-in demo model instead"
        )
        deployment = deployment.with_demo_model()
    elif answer:
        problems += preflight.hub_problems(deployment, runtime, answer)
    if problems:
        raise BerthError(problems)
    return deployment


def running_already(deployment: Deployment) -> Started | None:
    """What this checkout already runs, if it is what was asked for. Raises BerthError if it is something else."""
    runtime = runtimes.running()
    if runtime is None:
        return None
    current = runtime.status()
    fell_back = current.model == names.DEMO and not deployment.model_named_by_user
    same = current.device == deployment.device and (current.model == deployment.model or fell_back)
    if not same or not current.endpoint:
        raise failed(
            f"Berth is already running here ({current.runtime}, {current.device}, {current.model})",
            "stop it first: scripts/berth down",
        )
    return Started(current.runtime, current.device, current.model, current.endpoint)


def start(deployment: Deployment, runtime: Runtime, progress: Progress, attached: bool, timeout_s: float) -> Started:
    """Start and wait. Whatever ends this early, Ctrl-C too, stops what was started."""
    service = local_url(deployment.address, deployment.service_port)
    endpoint = Endpoint(service, local_url("127.0.0.1", deployment.engine_port))
    runtime.start(deployment, progress, attached)
    try:
        models = waiting.until_ready(runtime, deployment, service, progress, timeout_s)
    except BaseException:
        runtime.stop(progress)
        raise
    return Started(runtime.name, deployment.device, models[0] if models else deployment.model, endpoint)


def stay(runtime: Runtime, progress: Progress, show_logs: bool) -> None:
    """Print both logs until the deployment is stopped; Ctrl-C stops it. Raises BerthError if it failed by itself."""
    if show_logs:
        threading.Thread(target=_print_logs, args=(runtime,), daemon=True).start()
    try:
        while not (status := runtime.status()).stopped:
            time.sleep(FOLLOW_POLL_S)
    except KeyboardInterrupt:
        progress.say("stopping: answers that are being written are finished first (Ctrl-C again to cut them off)")
        runtime.stop(progress)
        progress.say("stopped")
        return
    if status.state == "failed":
        raise BerthError(Problem("the deployment has failed", "scripts/berth logs engine", Exit.FAILED))
    progress.say("stopped")


def _print_logs(runtime: Runtime) -> None:
    for line in runtime.logs(None, follow=True, tail=0):
        print(line, file=sys.stdout, flush=True)


def describe(status: Status) -> list[tuple[str, str]]:
    """A status as rows of a table."""
    rows = [("state", status.state)]
    if not status.stopped:
        rows += [("runtime", status.runtime), ("device", status.device), ("model", status.model)]
        rows += [("env files", ", ".join(status.files))] if status.files else []
        rows += [(part.name, f"{part.state}{f' ({part.detail})' if part.detail else ''}") for part in status.parts]
        rows += [("endpoint", status.endpoint.service)] if status.endpoint else []
        rows += list(status.facts.items())
    return rows
