"""Durations as people and Slurm write them."""

import re

from berth.errors import Exit, failed

FORMS = "4:00:00, 1-12:00:00, 36h, 1d12h or 90m; a bare number counts minutes, as in Slurm"
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_HUMAN = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_SLURM = re.compile(r"(?:(\d{1,9})-)?(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?", re.ASCII)


def parse(text: str, name: str = "duration") -> int:
    """Seconds of a duration in Slurm's forms ([D-]H:M:S, M:S, M, D-H) or a person's (36h, 1d12h, 90m).

    Raises BerthError (exit code 2) for anything else and for zero; `name` is the option that it was given for.
    """
    said = text.strip().lower()
    seconds = 0
    if match := _SLURM.fullmatch(said):
        seconds = _slurm(match)
    elif said and (match := _HUMAN.fullmatch(said)):
        seconds = sum(int(number or 0) * unit for number, unit in zip(match.groups(), UNITS.values(), strict=True))
    if not 0 < seconds < 10**9:
        raise failed(f"{name} {text}: not a duration", f"write it as {FORMS}", Exit.BAD_SETTING)
    return seconds


def _slurm(match: re.Match[str]) -> int:
    days, first, second, third = (None if part is None else int(part) for part in match.groups())
    if days is not None:  # D-H[:M[:S]]
        return days * 86400 + (first or 0) * 3600 + (second or 0) * 60 + (third or 0)
    if third is not None:  # H:M:S
        return (first or 0) * 3600 + (second or 0) * 60 + third
    return (first or 0) * 60 + (second or 0)  # M[:S]


def words(seconds: float) -> str:
    """A duration for a person, to two units: 1d 12h, 3h 59m, 2m 05s, 40s."""
    rest = max(0, int(seconds))
    if rest < 60:
        return f"{rest}s"
    if rest < 3600:
        return f"{rest // 60}m" + (f" {rest % 60:02}s" if rest % 60 else "")
    if rest < 86400:
        return f"{rest // 3600}h" + (f" {rest % 3600 // 60:02}m" if rest % 3600 // 60 else "")
    return f"{rest // 86400}d" + (f" {rest % 86400 // 3600}h" if rest % 86400 // 3600 else "")
