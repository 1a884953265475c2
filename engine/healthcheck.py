"""Tells by its exit code whether the engine serves its model: 0 yes, 1 no. No output, no curl, no proxy."""

import http.client
import json
import os
import sys
from collections.abc import Mapping

from engine import names

TIMEOUT_S = 5.0  # an engine busy with a long prefill still answers these two paths at once


def healthy(environ: Mapping[str, str]) -> bool:
    """Whether `/health` is good and `/v1/models` lists a model."""
    try:
        return _get("/health", environ) is not None and bool(json.loads(_get("/v1/models", environ) or b"{}").get("data"))
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _get(path: str, environ: Mapping[str, str]) -> bytes | None:
    connection = http.client.HTTPConnection("127.0.0.1", int(environ.get(names.PORT) or names.DEFAULT_PORT), timeout=TIMEOUT_S)
    connection.request("GET", path)
    reply = connection.getresponse()
    return reply.read() if reply.status == 200 else None


def main() -> int:
    """Return the exit code for this process's environment."""
    return 0 if healthy(os.environ) else 1


if __name__ == "__main__":
    sys.exit(main())
