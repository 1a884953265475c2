"""What verbs print on stdout: JSON for programs, a table for people, tab-separated lines for pipes."""

import json
import sys
from collections.abc import Sequence
from typing import Any


def show(data: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(data, indent=2 if sys.stdout.isatty() else None), flush=True)


def table(rows: Sequence[tuple[str, ...]], heads: tuple[str, ...] = ()) -> None:
    """Print rows, aligned on a terminal."""
    if not sys.stdout.isatty():
        print("\n".join("\t".join(row) for row in ([heads, *rows] if heads else rows)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*heads, show_header=bool(heads), box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def commands(lines: Sequence[str], as_json: bool) -> None:
    """Print the commands of a dry run."""
    if as_json:
        show({"commands": list(lines)})
    else:
        print("\n".join(lines))
