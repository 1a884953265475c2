"""What the launcher says: one line per decision, one sentence and a hint per problem, never a secret."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes, the same for every program of this project."""

    OK = 0
    FAILED = 1
    BAD_SETTING = 2
    MISSING_PREREQUISITE = 3
    NOT_READY = 4


@dataclass(frozen=True)
class Problem:
    """Why nothing can start: one sentence, and a hint that names the fix."""

    sentence: str
    hint: str
    exit_code: Exit = Exit.BAD_SETTING

    def __str__(self) -> str:
        return f"{self.sentence} ({self.hint})"


def mask(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with every secret replaced by `***`, the longest first so that none leaves a remainder."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def say(text: str, secrets: Iterable[str] = ()) -> None:
    """Write one line of the launcher's log to stderr."""
    sys.stderr.write(f"berth: {one_line(mask(text, secrets))}\n")


def complain(problem: Problem, secrets: Iterable[str] = ()) -> None:
    """Write a problem to stderr: the sentence, then the hint."""
    secrets = tuple(secrets)
    sys.stderr.write(f"berth: error: {one_line(mask(problem.sentence, secrets))}\n")
    sys.stderr.write(f"berth: hint: {one_line(mask(problem.hint, secrets))}\n")


def one_line(text: str) -> str:
    """Keep a message on one line, whatever a value holds."""
    return " ".join(text.splitlines())
