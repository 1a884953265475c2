"""Where tokens and keys come from, and what must never be shown."""

from collections.abc import Mapping

from engine import names


def secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Every secret that the environment holds, for masking."""
    return tuple(value for name in names.SECRETS if (value := environ.get(name)))
