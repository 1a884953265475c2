"""What an environment variable says, before anyone asks whether it is a good value.

Standard library only, so that the container's health check can use it without loading the web framework.
"""

import re
from collections.abc import Mapping

# Kubernetes puts these into every pod for each Service of the namespace; a Service named `llm` makes LLM_PORT=tcp://…
_INJECTED_NAME = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)$")
_INJECTED_VALUE = re.compile(r"(tcp|udp|sctp)://")


def is_injected(name: str, value: str) -> bool:
    """Say whether Kubernetes made this variable for a Service, so that it is nobody's setting."""
    if _INJECTED_NAME.search(name):
        return True
    return name.endswith("_PORT") and _INJECTED_VALUE.match(value) is not None


def cleaned(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are set: no empty ones, none of Kubernetes', one pair of outer quotes removed.

    `docker run --env-file` keeps the quotes that Compose strips, so the same file must mean the same thing here.
    """
    found = {}
    for name, raw in environ.items():
        value = raw.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1].strip()
        if value and not is_injected(name, value):
            found[name] = value
    return found
