"""Where things are: the checkout, and what belongs to it below .berth/."""

import shlex
from pathlib import Path

ROOT = Path(__file__).absolute().parents[1]
STATE = ROOT / ".berth"
RUN = STATE / "run"


def from_root(path: Path) -> str:
    """The path for a command that runs in the checkout."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def in_root(command: str) -> str:
    """A command line that means the same wherever the user stands."""
    return command if Path.cwd() == ROOT else f"cd {shlex.quote(str(ROOT))} && {command}"


def shown(path: Path) -> str:
    """The path as a person would write it: relative to the checkout, or to where they stand."""
    for base in (ROOT, Path.cwd()):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)
