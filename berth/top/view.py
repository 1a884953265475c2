"""Draws the looks on a terminal, one after another, until Ctrl-C."""

import time
from collections import deque
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from berth.top.looking import Look
from berth.top.sample import HEADS, Sample

_BARS = "▁▂▃▄▅▆▇█"
_LOOKS = 30  # a line of tokens per second goes that far back
_RIGHT = ("in flight", "queue", "tokens/s", "first token", "KV cache", "time left")
_COLOURS = {"ready": "green", "failed": "red", "degraded": "red", "stale": "red"}


class View:
    """The table, and how fast each deployment has written lately."""

    def __init__(self) -> None:
        self._speeds: dict[tuple[str, str], deque[float]] = {}

    def draw(self, look: Look, width: int) -> RenderableType:
        """One look as rich draws it. Deployments that are gone are forgotten, so that one of that name begins anew."""
        self._speeds = {one.key: self._speeds.get(one.key, deque(maxlen=_LOOKS)) for one in look.samples}
        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        shown = _columns(look, width)
        for place in shown:
            right = HEADS[place] in _RIGHT
            table.add_column(HEADS[place], justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
        table.add_column("", no_wrap=True, overflow="crop", min_width=8, ratio=1)
        for one in look.samples:
            self._speeds[one.key].append(one.tokens_per_s or 0.0)
            cells = one.cells()
            drawn = [Text(cells[place], style=_style(HEADS[place], one)) for place in shown]
            table.add_row(*drawn, Text(sparkline(self._speeds[one.key]), style="cyan"))
        details = [Text(f"{one.name or one.runtime}: {one.detail}", style="dim") for one in look.samples if one.detail]
        notes = [Text(note, style="yellow") for note in look.notes]
        nothing = [] if look.samples else [Text("nothing runs here; start with: scripts/up")]
        now = Text(f"berth top   {time.strftime('%H:%M:%S')}   Ctrl-C ends it", style="dim")
        return Group(now, Text(), table if look.samples else Text(), *nothing, *details, *notes)


def _columns(look: Look, width: int) -> list[int]:
    """The columns that say something; on a narrow terminal where it runs is left out, while that is one place."""
    filled = [place for place in range(len(HEADS)) if any(one.cells()[place] for one in look.samples)]
    if width < 80 and len({one.runtime for one in look.samples}) < 2:
        filled = [place for place in filled if HEADS[place] != "where"]
    return filled


def _style(head: str, one: Sample) -> str:
    if head == "state":
        return _COLOURS.get(one.state, "yellow")
    return "bold" if head == "tokens/s" else ""


def sparkline(values: "deque[float]") -> str:
    """Bars from nothing to the highest of them."""
    most = max(values, default=0.0)
    return "".join(_BARS[round((len(_BARS) - 1) * value / most) if most else 0] for value in values)


def follow(look: Callable[[], Look], first: Look, every_s: float) -> None:
    """Draw `first`, then look and draw every so many seconds until Ctrl-C."""
    console, view = Console(), View()
    with Live(view.draw(first, console.width), console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                began = time.monotonic()
                live.update(view.draw(look(), console.width), refresh=True)
                time.sleep(max(0.2, every_s - (time.monotonic() - began)))
        except KeyboardInterrupt:
            return
