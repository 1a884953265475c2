"""How a container ended, also when Docker has started it again meanwhile."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container


@dataclass(frozen=True)
class End:
    """One end of a container; `code` is None when Docker no longer knows it."""

    code: int | None
    out_of_memory: bool


def last_end(client: "DockerClient", container: "Container") -> End | None:
    """Return the last end of a container, None while it is in its first life.

    Once Docker has started it again, its state speaks of the new life (exit code 0), and only the events tell of the
    old one; Docker keeps the last 256 of them.
    """
    state = container.attrs["State"]
    if state["Status"] in ("exited", "dead", "restarting"):
        return End(state["ExitCode"], bool(state.get("OOMKilled")))
    if not container.attrs["RestartCount"]:
        return None
    filters = {"container": container.id, "event": ["die", "oom"]}
    # From the first second to this one: without an end the call would wait for what is to come.
    events = list(client.events(since=1, until=int(time.time()) + 1, filters=filters, decode=True))
    codes = [int(event["Actor"]["Attributes"]["exitCode"]) for event in events if event["Action"] == "die"]
    return End(codes[-1] if codes else None, any(event["Action"] == "oom" for event in events))
