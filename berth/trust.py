"""HTTPS of a service that runs here: its own certificate is trusted, whatever names it bears, and no other one.

The service is asked at this machine's own address, which certificates rarely name.
"""

import contextlib
import shlex
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from berth.errors import Exit, failed

TIMEOUT_S = 5.0
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def context(certificate: str) -> ssl.SSLContext | bool:
    """What a client of the service needs: trust in the first certificate in this file; without a file, the usual one.

    The first one is the service's own: those after it vouch for others as well. A file that is not there, or holds no
    certificate, lets nothing be trusted.
    """
    if not certificate:
        return True
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    with contextlib.suppress(OSError, ValueError):  # without it nothing is trusted, and every connection fails
        text = Path(certificate).read_text(encoding="ascii", errors="replace")
        made.load_verify_locations(cadata=text[text.index(_BEGIN) : text.index(_END) + len(_END)])
    return made


def authority(file: Path) -> ssl.SSLContext:
    """Trust in the certificates of a file for a service anywhere, by its name. Raises BerthError (exit code 2)."""
    try:
        made = ssl.create_default_context(cafile=file)
    except OSError as error:
        why = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else "it holds no certificate"
        raise failed(f"{file} cannot be used: {why}", "name a file in PEM form: --cacert", Exit.BAD_SETTING) from error
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return made


def names(url: str, certificate: str) -> list[str]:
    """The names and addresses that the certificate of the service at this URL bears; none where it does not answer."""
    trusting, where = context(certificate), urlsplit(url)
    if not isinstance(trusting, ssl.SSLContext):
        return []
    try:
        with (
            socket.create_connection((where.hostname or "", where.port or 443), TIMEOUT_S) as plain,
            trusting.wrap_socket(plain) as secured,
        ):
            shown = secured.getpeercert() or {}
    except OSError:
        return []
    return [str(pair[1]) for pair in shown.get("subjectAltName", ())]


def curl_words(url: str, certificate: str) -> tuple[str, str]:
    """What curl needs before the URL, and the URL by a name that the certificate bears.

    A name other than this machine's own is led to this machine, so that the line works before the name does.
    """
    if not certificate:
        return "", url
    where, borne = urlsplit(url), names(url, certificate)
    trust = f"--cacert {shlex.quote(certificate)} "
    host = where.hostname or ""
    local = [name for name in (host, "localhost") if name in borne]
    if local or not borne:
        return trust, f"https://{_bracketed(local[0] if local else host)}:{where.port}"
    name = borne[0].replace("*", "www")
    return f"{trust}--connect-to ::{_bracketed(host)}:{where.port} ", f"https://{_bracketed(name)}:{where.port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
