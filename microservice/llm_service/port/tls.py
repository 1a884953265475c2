"""TLS from two files, which may be replaced while the service runs: a renewed certificate needs no restart."""

import logging
import ssl
from pathlib import Path

from llm_service.lock.changed import Files

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
        self._files = Files(*self._paths)
        self._now = self.context = context_of(*self._paths)
        # OpenSSL calls this in every handshake, with a server's name or without.
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        if self._files.changed():
            self._read_again()
        connection.context = self._now

    def _read_again(self) -> None:
        """Read the files. Those that went bad, or fit no longer, change nothing."""
        try:
            self._now = context_of(*self._paths)
        except CertificateError as error:
            _log.warning("%s The certificate from before still counts.", error)
            return
        _log.info("certificate read again")
