"""TLS from two files, which may be replaced while the service runs: a renewed certificate needs no restart."""

import logging
import os
import ssl
import time
from pathlib import Path

LOOK_SECONDS = 1.0  # changed files count after at most this long

_log = logging.getLogger("llm_service.tls")


class CertificateError(Exception):
    """Files that are no certificate with its key; the text says why."""


def context_of(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what answers handshakes with this certificate; raise CertificateError when the files cannot be used."""
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise CertificateError(f"{path} cannot be read: {error.strerror}.") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password: asking for one on a terminal would hang a service.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError, ValueError):
        raise CertificateError(
            f"{certificate} and {key} are no certificate in PEM form with its own key, without a password."
        ) from None
    return context


class Certificate:
    """The certificate that new connections get. Those that are open keep theirs."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read the files; raise CertificateError when they cannot be used."""
        self._paths = (certificate, key)
        self._seen = self._mark()
        self._now = self.context = context_of(*self._paths)
        # OpenSSL calls this in every handshake, with a server's name or without.
        self.context.sni_callback = self._choose
        self._looked_at = time.monotonic()

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._look()
        connection.context = self._now

    def _look(self) -> None:
        """Read the files again if they changed. Files that went bad, or fit no longer, change nothing."""
        self._looked_at = time.monotonic()
        mark = self._mark()
        if mark == self._seen:
            return
        self._seen = mark
        try:
            self._now = context_of(*self._paths)
        except CertificateError as error:
            _log.warning("%s The certificate from before still counts.", error)
            return
        _log.info("certificate read again")

    def _mark(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(_mark(path) for path in self._paths)


def _mark(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
