"""Where tokens and keys come from, and what must never be shown."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from engine import names
from engine.decisions import Decision
from engine.messages import Problem

# Where Compose and Kubernetes mount secrets by these names.
MOUNTED = Path("/run/secrets")


def secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Every secret that the environment holds, for masking."""
    return tuple(value for name in names.SECRETS if (value := environ.get(name)))


def settle(
    settings: Mapping[str, str], environ: Mapping[str, str], mounted: Path = MOUNTED
) -> tuple[list[Decision], list[Problem]]:
    """Return how vLLM gets the token and the key, none of them as an argument.

    `settings` is the environment as given, `environ` what is passed on to vLLM.
    """
    decisions: list[Decision] = []
    problems: list[Problem] = []
    for found in (_token(environ, mounted), _key(settings, environ, mounted)):
        if isinstance(found, Problem):
            problems.append(found)
        else:
            decisions += found
    return decisions, problems


def _token(environ: Mapping[str, str], mounted: Path) -> list[Decision] | Problem:
    if environ.get(names.HF_TOKEN):
        return []
    if path := environ.get(names.HF_TOKEN_PATH):
        return [] if _read(Path(path)) is not None else _unreadable(names.HF_TOKEN_PATH, path)
    if _read(mounted / "hf_token"):
        path = str(mounted / "hf_token")
        return [Decision(f"{names.HF_TOKEN_PATH}={path}", "the file is there", {names.HF_TOKEN_PATH: path})]
    return []


def _key(settings: Mapping[str, str], environ: Mapping[str, str], mounted: Path) -> list[Decision] | Problem:
    if environ.get(names.API_KEY):
        return []
    given = settings.get(names.API_KEY_FILE)
    path = Path(given) if given else mounted / "vllm_api_key"
    key = _read(path)
    if given and not key:
        return _unreadable(names.API_KEY_FILE, given)
    if not key:
        return []
    return [
        Decision(f"{names.API_KEY} read from {path}", "vLLM takes it from the environment alone", {names.API_KEY: key})
    ]


def _read(path: Path) -> str | None:
    """The text of a secret's file; empty for an empty one, None for one that cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None


def _unreadable(name: str, path: str) -> Problem:
    state = "cannot be read" if os.path.exists(path) else "is not there"
    return Problem(
        f"{name}: {path} {state}, or is empty",
        f"make it a file that uid {os.getuid()} may read, or leave {name} out",
    )


def of(decisions: Iterable[Decision]) -> tuple[str, ...]:
    """The secrets that decisions carry, for masking."""
    return tuple(value for decision in decisions for name in names.SECRETS if (value := decision.environ.get(name)))
