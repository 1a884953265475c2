"""What runs on this machine: the engine's own figures, and what the service says of it."""

import re
import time
from typing import Any

import httpx

from berth import trust, waiting
from berth.runtimes import Endpoint, Runtime
from berth.top.sample import Sample, load
from engine.prometheus import Load

TIMEOUT_S = 5.0
_QUEUED = re.compile(r"^berth_requests_queued ([\d.]+)$", re.MULTILINE)
_IN_FLIGHT = re.compile(r"^berth_requests_in_flight ([\d.]+)$", re.MULTILINE)


class Here:
    """One runtime of this machine, looked at again and again."""

    def __init__(self, runtime: Runtime) -> None:
        self.name = runtime.name
        self._runtime = runtime
        self._load = Load()
        self._where: Endpoint | None = None

    def look(self) -> list[Sample]:
        """The deployment of this checkout, if it runs."""
        status = self._runtime.status()
        if status.stopped:
            return []
        where = status.endpoint
        said = waiting.service_state(where) if where else {}
        ready = status.ready if status.ready is not None else said.get("state") == "ready"
        doing: dict[str, Any] = said.get("doing") or {}
        figures = self._figures(where) if where and ready else {}
        return [
            Sample(
                self.name,
                status.facts.get("project", ""),
                status.model,
                status.device,
                "ready" if ready else status.state,
                "" if ready else str(doing.get("name", "")),
                doing.get("fraction"),
                "" if ready else str(said.get("detail", "")),
                endpoint=where.service if where else "",
                **load(figures),
            )
        ]

    def _figures(self, where: Endpoint) -> dict[str, Any]:
        """What the engine tells, and the service where it asks for no key: what waits in it waits, too."""
        if where != self._where:
            self._load, self._where = Load(), where
        held = _get(f"{where.service}/metrics", where.certificate)
        queued = _number(_QUEUED, held)
        text = _get(f"{where.engine}/metrics") if where.engine else ""
        if not text and not held:
            return {}
        told: dict[str, Any] = self._load.update(text or held, time.monotonic())
        if text:
            return {**told, "requests_waiting": told["requests_waiting"] + queued}
        # An engine out of this machine's reach: the service counts what it let through, and no token.
        waits = {"requests_running": _number(_IN_FLIGHT, held), "requests_waiting": queued}
        return {**told, **waits, "generation_tokens_per_s": None}


def _number(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return int(float(found[1])) if found else 0


def _get(url: str, certificate: str = "") -> str:
    """The text of a good answer, else nothing. A proxy in the environment is not for this machine."""
    try:
        answer = httpx.get(url, timeout=TIMEOUT_S, trust_env=False, verify=trust.context(certificate))
    except httpx.HTTPError:
        return ""
    return answer.text if answer.status_code == httpx.codes.OK else ""
