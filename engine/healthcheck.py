"""Tells by its exit code whether the engine serves its model: 0 yes, 1 no. No output, no curl, no proxy."""

import http.client
import json
import os
import ssl
import sys
from collections.abc import Mapping

from engine import arguments, catalog, credentials, follower, names, ranks, settings
from engine.unix_http import UnixConnection

TIMEOUT_S = 5.0  # an engine busy with a long prefill still answers these two paths at once
_EVERYWHERE = ("0.0.0.0", "::", "")  # listening there, an engine answers on loopback


def healthy(environ: Mapping[str, str]) -> bool:
    """Whether `/health` is good and `/v1/models` lists the name that the model is served under.

    A node that follows another one serves nothing; it is well while its head is there.
    """
    try:
        known = catalog.load(environ.get(names.DEVICE), environ)
        reading = settings.read(environ, known, known.device)
        values = arguments.values(reading.args(), known)
        if values.get("headless") == "true":
            head = values.get("master-addr", ranks.LOOPBACK), int(values.get("master-port", follower.MASTER_PORT))
            return follower.has_a_head(*head)
        headers = _headers(environ, reading.environ)
        if _get("/health", values, headers) is None:
            return False
        listed = json.loads(_get("/v1/models", values, headers) or b"null")
        served = {entry["id"] for entry in listed["data"]}
    except (catalog.CatalogError, OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False
    expected = values.get("served-model-name") or reading.model
    return bool(served) if expected is None else expected in served


def _headers(environ: Mapping[str, str], passed_on: Mapping[str, str]) -> dict[str, str]:
    decisions, _ = credentials.settle(environ, passed_on)
    key = settings.applied(passed_on, decisions).get(names.API_KEY)
    return {"Authorization": f"Bearer {key}"} if key else {}


def _get(path: str, values: Mapping[str, str], headers: Mapping[str, str]) -> bytes | None:
    connection = _connection(values)
    try:
        connection.request("GET", path, headers=dict(headers))
        reply = connection.getresponse()
        return reply.read() if reply.status == http.client.OK else None
    finally:
        connection.close()


def _connection(values: Mapping[str, str]) -> http.client.HTTPConnection:
    if path := values.get("uds"):
        return UnixConnection(path, TIMEOUT_S)
    host, port = values.get("host", names.DEFAULT_HOST), int(values.get("port", names.DEFAULT_PORT))
    address = "127.0.0.1" if host in _EVERYWHERE else host
    if "ssl-certfile" in values:  # the certificate is for the name that clients use, not for loopback
        unverified = ssl._create_unverified_context()  # noqa: S323
        return http.client.HTTPSConnection(address, port, timeout=TIMEOUT_S, context=unverified)
    return http.client.HTTPConnection(address, port, timeout=TIMEOUT_S)


def main() -> int:
    """Return the exit code for this process's environment."""
    return 0 if healthy(os.environ) else 1


if __name__ == "__main__":
    sys.exit(main())
