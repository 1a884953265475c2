"""Where things are: the checkout, and what belongs to it below .berth/."""

from pathlib import Path

ROOT = Path(__file__).absolute().parents[1]
STATE = ROOT / ".berth"
RUN = STATE / "run"


def shown(path: Path) -> str:
    """The path as a person would write it: relative to the checkout, or to where they stand."""
    for base in (ROOT, Path.cwd()):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)
