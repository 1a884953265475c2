"""The line to one run's door: direct or through a tunnel, looked after by asking the door whether it is there."""

import asyncio
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from berth.slurm.kept import Kept
from berth.slurm.store import EndpointFile, Store
from berth.slurm.tunnel import LOOPBACK, forward, free_port, meaning, route

ASK_EVERY_S = 5.0  # a line that works
ASK_TIMEOUT_S = 5.0
MISSES = 3  # unanswered questions after which a line that worked is made anew

# A proxy in the environment is not for a door.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Line:
    """The way to one run. `url` is where its door answers on this machine, once `reached`."""

    def __init__(self, endpoint: EndpointFile, store: Store, directory: Path, on_reached: Callable[[], None]) -> None:
        self._store, self._on_reached = store, on_reached
        self._endpoint = endpoint
        self._asking: asyncio.Task[None] | None = None
        self.route = route(endpoint, store.cluster, store.site)
        self.reached = False
        self._misses = 0
        self._asked_at = float("-inf")
        self._said = ""
        self.rebuilt = 0
        self.tunnel: Kept | None = None
        self.host, self.port = self.route.host, self.route.port
        if self.route.destination and self.route.port:
            self.host, self.port = LOOPBACK, free_port()
            self.tunnel = Kept(self._command, directory / f"tunnel-{endpoint.run}.log")
            self.tunnel.start()

    @property
    def url(self) -> str:
        """Where the door answers on this machine."""
        return f"http://{self.host}:{self.port}"

    def leads_to(self, endpoint: EndpointFile) -> bool:
        """Whether this is still the way to that run: a requeued job comes back on another node."""
        return self.route == route(endpoint, self._store.cluster, self._store.site)

    def _command(self) -> list[str]:
        if self.tunnel and self.tunnel.ends and not self.reached:
            self.port = free_port()  # the last one may have been taken just before ssh wanted it
        return forward(self.route, self.port, self._store.cluster)

    def look(self, endpoint: EndpointFile, key: str) -> None:
        """Ask the door whether it is there: at every look until it answers, now and then while it does.

        Nobody waits for the answer here: a node that has gone silent must not hold up the others.
        """
        self._endpoint = endpoint
        pause = ASK_EVERY_S if self.reached and not self._misses else 0.0
        if not self.port or (self._asking and not self._asking.done()) or time.monotonic() < self._asked_at + pause:
            return
        self._asked_at = time.monotonic()
        self._asking = asyncio.create_task(self._ask(key))

    async def _ask(self, key: str) -> None:
        answered, self._said = await asyncio.to_thread(_answers, f"{self.url}/health", key)
        self._misses = 0 if answered else self._misses + 1
        if answered and not self.reached:
            self.reached = True
            self._on_reached()
        elif self.reached and self._misses >= MISSES:
            self.reached = False
            self.rebuilt += 1
            if self.tunnel:
                self.tunnel.again()

    def trouble(self) -> tuple[str, str]:
        """Why the door is not reached, as (sentence, hint)."""
        where = self._endpoint.node or self._endpoint.host
        if self.tunnel and (lines := self.tunnel.said()):
            return meaning(lines, str(self.route.destination))
        if not self.port:
            return f"its job on {where} has opened no tunnel to the login node", "see its log: scripts/berth logs"
        hint = "set SITE_TRANSPORT=jump, or job, in the site file" if not self.tunnel else "scripts/berth logs"
        return f"{self.url} ({where}) {self._said or 'is being asked'}", hint

    def facts(self) -> dict[str, Any]:
        """What the state file says about this line."""
        tunnel = self.tunnel
        return {
            "run": self._endpoint.run,
            "node": self._endpoint.node,
            "state": self._endpoint.state,
            "model": self._endpoint.model,
            "phase": self._endpoint.watch.get("phase", {}),
            "ends": self._endpoint.ends,
            "url": self.url,
            "reached": self.reached,
            "rebuilt": self.rebuilt + (tunnel.ends if tunnel else 0),
            "trouble": "" if self.reached else self.trouble()[0],
            "ssh": tunnel.pid if tunnel else None,
        }

    async def stop(self) -> None:
        """Close the tunnel."""
        if self._asking:
            self._asking.cancel()
        if self.tunnel:
            await self.tunnel.stop()


def _answers(url: str, key: str) -> tuple[bool, str]:
    """Whether a door answers, and if not, what happened instead."""
    try:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
        with _opener.open(request, timeout=ASK_TIMEOUT_S) as answer:
            return answer.status == 200, f"answers with status {answer.status}"
    except urllib.error.HTTPError as error:
        error.close()
        return False, "does not accept the deployment's key" if error.code == 401 else f"says {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return False, f"does not answer: {getattr(reason, 'strerror', None) or reason}"
