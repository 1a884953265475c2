"""python -m llm_service.healthcheck: exit code 0 while the service answers /health, else 1. For containers.

Standard library only, no proxy, and no settings but the address.
It shows no key: a service that asks for one is alive, too.
"""

import http.client
import os
import sys

from llm_service.environment import cleaned

# An address to listen on that means "all of them" is none to connect to.
_CONNECTABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def alive(host: str, port: int, timeout_seconds: float = 3.0) -> bool:
    """Say whether the service answers at this address."""
    connection = http.client.HTTPConnection(_CONNECTABLE.get(host, host), port, timeout=timeout_seconds)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status in (200, 401)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> int:
    """Return the exit code."""
    given = cleaned(os.environ)
    return 0 if alive(given.get("LLM_USVC_HOST", "127.0.0.1"), int(given.get("LLM_USVC_PORT", "9000"))) else 1


if __name__ == "__main__":
    sys.exit(main())
