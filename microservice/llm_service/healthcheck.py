"""python -m llm_service.healthcheck: exit code 0 while the service answers /health, else 1. For containers.

Standard library only, no proxy, and no settings but the address.
It shows no key: a service that asks for one is alive, too. Over TLS it takes any certificate, since it knows the
service by its address, and tells it nothing.
"""

import http.client
import os
import ssl
import sys

from llm_service.config.environment import cleaned

# An address to listen on that means "all of them" is none to connect to.
_CONNECTABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def alive(host: str, port: int, timeout_seconds: float = 3.0, *, tls: bool = False) -> bool:
    """Say whether the service answers at this address."""
    name = _CONNECTABLE.get(host, host)
    if tls:
        anyone = ssl._create_unverified_context()  # noqa: S323
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            name, port, timeout=timeout_seconds, context=anyone
        )
    else:
        connection = http.client.HTTPConnection(name, port, timeout=timeout_seconds)
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
    host, port = given.get("LLM_USVC_HOST", "127.0.0.1"), int(given.get("LLM_USVC_PORT", "9000"))
    return 0 if alive(host, port, tls="LLM_TLS_CERT_FILE" in given) else 1


if __name__ == "__main__":
    sys.exit(main())
