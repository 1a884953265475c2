"""The cards that a plan can be made for: cards.toml, a size such as 96g, or this machine's memory for `cpu`."""

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from engine import host
from engine.fit import GB
from engine.messages import Problem

TABLE = Path(__file__).with_name("cards.toml")
CPU = "cpu"
_SIZE = re.compile(r"(\d{1,4})g(?:b)?", re.IGNORECASE)


class UnknownCard(Exception):
    """No such card; `problem` says which there are."""

    def __init__(self, name: str) -> None:
        near = get_close_matches(name.lower(), [*table(), CPU], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        known = f"{hint}Known: {', '.join([*table(), CPU])}; or a size such as 96g. docs/plan.md says how to add one"
        self.problem = Problem(f"--gpu {name}: no such card", known)
        super().__init__(self.problem.sentence)


@dataclass(frozen=True)
class Card:
    """One card, or the memory of a machine that serves on its CPU. Sizes in bytes."""

    name: str
    device: str
    label: int  # as its maker counts
    memory: int  # as its driver counts
    per_host: int


@cache
def table() -> dict[str, Card]:
    """Every card of cards.toml."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {
        name: Card(name, row["device"], row["label_gb"] * GB, row["memory_mib"] << 20, row["per_host"])
        for name, row in rows.items()
    }


def find(name: str) -> Card:
    """The card of that name. Raises UnknownCard."""
    if found := table().get(name.lower()):
        return found
    if name.lower() == CPU:
        memory = host.memory_available() or 0
        return Card(CPU, CPU, memory, memory, 1)
    if (match := _SIZE.fullmatch(name)) and (size := int(match[1])):
        return Card(f"{size} GB", "cuda", size * GB, size * GB, 8)
    raise UnknownCard(name)
