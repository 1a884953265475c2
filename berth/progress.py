"""Shows long work on stderr: bars and a spinner on a terminal, a line now and then everywhere else."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from engine.phases import READY, Phase

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

# Between two lines about the same phase where there is no terminal: with news, and without.
NEWS_EVERY_S, EVERY_S = 3.0, 15.0


class Progress:
    """The current phase, drawn as it goes. Use it as a context manager."""

    def __init__(self) -> None:
        self._phase: Phase | None = None
        self._said: Phase | None = None  # what the last line was about
        self._began = self._printed = time.monotonic()
        self._bars: Bars | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            self._bars = Bars(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                TaskProgressColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()
        if kind is None:
            self._finish()

    def show(self, phase: Phase) -> None:
        """Make `phase` the current one; the same name again updates its bar."""
        changed = self._phase is None or self._phase.name != phase.name
        if changed:
            self._finish()
            self._began = time.monotonic()
        news = phase != self._said
        self._phase = phase
        if self._bars:
            self._draw(self._bars, phase, changed)
        elif changed or time.monotonic() - self._printed >= (NEWS_EVERY_S if news else EVERY_S):
            self._print(phase)

    def say(self, text: str) -> None:
        """Print one line about something other than a phase."""
        if self._bars:
            self._bars.console.print(f"berth: {text}", markup=False, highlight=False)
        else:
            print(f"berth: {text}", file=sys.stderr, flush=True)

    def _draw(self, bars: "Bars", phase: Phase, changed: bool) -> None:
        if changed or self._task is None:
            self._task = bars.add_task(phase.name, total=None, detail=phase.detail)
        known = phase.fraction is not None
        bars.update(self._task, total=1.0 if known else None, completed=phase.fraction or 0.0, detail=phase.detail)

    def _print(self, phase: Phase) -> None:
        self._printed, self._said = time.monotonic(), phase
        percent = f" {phase.fraction:.0%}" if phase.fraction is not None else ""
        detail = f" ({phase.detail})" if phase.detail else ""
        print(f"berth: {phase.name}{percent}{detail}", file=sys.stderr, flush=True)

    def _finish(self) -> None:
        """Leave one line about the phase that has ended, where a bar would vanish without a trace."""
        if self._bars and self._phase and self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
            if self._phase.name == READY:
                return
            took = time.monotonic() - self._began
            self._bars.console.print(f"berth: {self._phase.name}: {took:.0f} s", markup=False, highlight=False)
