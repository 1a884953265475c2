"""`berth up`: read, check, start, show, and say how to talk to it and how to stop it."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berth import deployment as deployments
from berth import preflight, runtimes, trust
from berth.deployment import Deployment
from berth.errors import BerthError, failed
from berth.progress import Progress
from berth.runtimes import NOTHING, Endpoint, Ready, Request, Runtime, Status
from engine import names

_STOP = "scripts/berth down"


@dataclass(frozen=True)
class Started:
    """A deployment that answers."""

    runtime: str
    device: str
    model: str
    ready: Ready

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        service = self.ready.endpoint.service
        return {
            "runtime": self.runtime,
            "device": self.device,
            "model": self.model,
            "endpoint": service,
            "engine": self.ready.endpoint.engine,
            "curl": curl(self.ready.endpoint, self.ready.locked) if service else "",
            "stop": _STOP,
            **self.ready.facts,
        }

    def words(self, attached: bool) -> str:
        """What a person reads at the end of `berth up`."""
        if self.ready.words:
            return self.ready.words
        elsewhere = self.ready.facts.get("stop")
        return "\n".join(
            (
                "",
                f"{self.model} is ready at {self.ready.endpoint.service} ({self.device}, {self.runtime}). "
                "Ask it something:",
                "",
                curl(self.ready.endpoint, self.ready.locked),
                "",
                *(["  KEY is a key of yours; a new one: scripts/berth key add NAME"] if self.ready.locked else []),
                f"  or talk to it:  scripts/berth chat{' --key-file FILE' if self.ready.locked else ''}",
                f"  stop it with:   {'Ctrl-C, or ' if attached and not elsewhere else ''}{elsewhere or _STOP}",
                "",
            )
        )


def curl(where: Endpoint, locked: bool = False) -> str:
    """The curl line, which works as printed; where clients show a key, once KEY holds one."""
    body = json.dumps({"messages": [{"role": "user", "content": "What is Deep Learning?"}], "max_tokens": 128})
    key = ' -H "Authorization: Bearer $KEY"' if locked else ""
    trusting, url = trust.curl_words(where.service, where.certificate)
    return f"curl {trusting}{url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def plan(
    files: Sequence[Path],
    device: str | None,
    runtime: str | None,
    progress: Progress,
    request: Request = NOTHING,
) -> tuple[Deployment, Runtime]:
    """What is to be started and by which runtime. Raises BerthError for settings first, then for the runtime."""
    deployment = deployments.resolve(files, device)
    deployments.check_settings(deployment)
    chosen, why = runtimes.choose(runtime, request)
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
    if found := problems or preflight.fit_problems(deployment, runtime):
        raise BerthError(found)
    return deployment


def running_already(
    deployment: Deployment, chosen: Runtime, progress: Progress, timeout_s: float, attached: bool
) -> Started | None:
    """What runs already, if it is what was asked for. Raises BerthError if it is something else.

    On this machine a checkout runs one deployment at a time; elsewhere each has a name of its own.
    """
    runtime = runtimes.running_here() if chosen.local else chosen
    current = runtime.status(deployment) if runtime else None
    if runtime is None or current is None or current.stopped:
        return None
    fell_back = current.model == names.DEMO and not deployment.model_named_by_user
    same = current.device == deployment.device and (current.model == deployment.model or fell_back)
    if not same or (chosen.local and not current.endpoint):
        raise failed(
            f"Berth is already running {'here' if chosen.local else 'under this name'} "
            f"({current.runtime}, {current.device}, {current.model})",
            "stop it first: scripts/berth down" if chosen.local else "give this one another --name, or stop that one",
        )
    progress.say("already running")
    if not chosen.local:
        return Started(
            runtime.name, current.device, current.model, runtime.wait(deployment, progress, timeout_s, attached)
        )
    assert current.endpoint
    ready = Ready(current.endpoint, locked=bool(deployment.value("LLM_API_KEYS_FILE")))
    return Started(current.runtime, current.device, current.model, ready)


def start(deployment: Deployment, runtime: Runtime, progress: Progress, attached: bool, timeout_s: float) -> Started:
    """Start and wait. Whatever ends this early, Ctrl-C too, stops what was started on this machine."""
    runtime.start(deployment, progress, attached)
    try:
        ready = runtime.wait(deployment, progress, timeout_s, attached)
    except BaseException:
        if runtime.local:
            runtime.stop(progress)
        raise
    return Started(runtime.name, deployment.device, ready.models[0] if ready.models else deployment.model, ready)


def describe(status: Status) -> list[tuple[str, str]]:
    """A status as rows of a table."""
    rows = [("state", status.state)]
    if not status.stopped or status.parts:
        rows += [("runtime", status.runtime), ("device", status.device), ("model", status.model)]
        rows += [("env files", ", ".join(status.files))] if status.files else []
        rows += [(part.name, f"{part.state}{f' ({part.detail})' if part.detail else ''}") for part in status.parts]
        rows += [("endpoint", status.endpoint.service)] if status.endpoint else []
        rows += list(status.facts.items())
    return rows
