"""What a connection gives out to other machines: reverse tunnels from their loopback interfaces to the local door."""

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any

from berth.errors import BerthError
from berth.slurm.kept import Kept
from berth.slurm.ports_table import Table
from berth.slurm.tunnel import meaning, reverse


def request(place: Path, destination: str) -> Path:
    """The file by which `berth publish` asks the keeper of a connection for an outlet."""
    return place / "publish" / f"{re.sub(r'[^A-Za-z0-9.@-]', '_', destination)}.json"


class Outlet:
    """One reverse tunnel."""

    def __init__(self, asked: dict[str, Any], door_port: int, log: Path) -> None:
        self.destination, self.port = str(asked["to"]), int(asked["port"])
        self.closing: asyncio.Task[None] | None = None
        self.tunnel = Kept(lambda: reverse(self.destination, self.port, door_port), log)
        self.tunnel.start()

    def facts(self) -> dict[str, Any]:
        """What the state file says about it."""
        ends = self.tunnel.ends
        trouble, hint = meaning(self.tunnel.said(), self.destination) if ends and not self.tunnel.pid else ("", "")
        return {"to": self.destination, "port": self.port, "opened_again": ends, "trouble": trouble, "hint": hint}

    async def stop(self) -> None:
        """End the tunnel, strike the port out of the table there, delete the key there."""
        await self.tunnel.stop()
        with contextlib.suppress(BerthError):  # a machine that is gone: the next to publish there clears up
            await asyncio.to_thread(Table(self.destination).release, self.port)


class Outlets:
    """The outlets of one connection, in step with the files that ask for them."""

    def __init__(self, place: Path, door_port: int) -> None:
        self._directory, self._door_port = place / "publish", door_port
        self._open: dict[str, Outlet] = {}

    def look(self) -> None:
        """Open what is newly asked for, close what nobody asks for any more."""
        asked = {file.name: said for file in self._directory.glob("*.json") if (said := _read(file))}
        for name, outlet in list(self._open.items()):
            if name not in asked or outlet.port != asked[name]["port"]:
                outlet.closing = outlet.closing or asyncio.create_task(outlet.stop())
            if outlet.closing and outlet.closing.done():
                del self._open[name]
        for name in asked.keys() - self._open.keys():
            log = self._directory / f"{name.removesuffix('.json')}.log"
            self._open[name] = Outlet(asked[name], self._door_port, log)

    def facts(self) -> list[dict[str, Any]]:
        """What the state file says."""
        return [each.facts() for each in self._open.values()]

    def tunnels(self) -> list[Kept]:
        """The child processes."""
        return [each.tunnel for each in self._open.values()]

    async def stop(self) -> None:
        """Close all."""
        await asyncio.gather(*(each.closing or each.stop() for each in self._open.values()))


def _read(file: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return said if {"to", "port"} <= said.keys() else {}
