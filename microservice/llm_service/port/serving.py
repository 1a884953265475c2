"""How uvicorn serves the application: with our limits at the port, TLS if asked for, and headers for browsers."""

import ssl
from collections import Counter
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from llm_service.config.settings import Settings
from llm_service.port.cors import allowing
from llm_service.port.front import Front
from llm_service.port.limits import most_connections
from llm_service.port.tls import Certificate

# Nobody is to guess what a reply is, and no site is to show it in a frame.
_FOR_BROWSERS = [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")]


def server_config(app: ASGIApp, settings: Settings, refused: Counter[int]) -> uvicorn.Config:
    """Return how uvicorn serves this application; what the port refuses is counted in `refused`, by its status.

    Raises CertificateError when its certificate cannot be used.
    """
    context = _context(settings.tls_cert_file, settings.tls_key_file)
    return uvicorn.Config(
        allowing(app, settings.cors_origins),
        http=_front(settings, refused),
        ws="none",
        lifespan="on",
        headers=_FOR_BROWSERS,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_context_factory=None if context is None else lambda *_: context,
    )


def _context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    return None if certificate is None or key is None else Certificate(certificate, key).context


def _front(settings: Settings, counter: Counter[int]) -> type[Front]:
    class Configured(Front):
        refused = counter
        head_seconds = settings.header_seconds
        body_seconds = settings.body_seconds
        most_connections = most_connections()

    return Configured
