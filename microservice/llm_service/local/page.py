"""The page at `/`: static files that talk to this service as any client does, with a key that the reader enters.

The files hold no secret, so they are served without a key; what they ask for is not. Nothing is built and nothing
comes from elsewhere, which the headers hold the browser to.
"""

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FILES = Path(__file__).with_name("page")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Only what comes from here; no inline script or style, no HTML made from text, and no page may frame this one.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, but asked for each time: a new release must not meet files of the old one
}


def page_routes() -> list[Route]:
    """Return one route for each of the page's files, which are read once, now."""
    files = sorted(path for path in _FILES.iterdir() if path.suffix in _TYPES)
    return [_route("/" if path.name == "index.html" else f"/page/{path.name}", path) for path in files]


def _route(at: str, path: Path) -> Route:
    body = path.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag}

    async def file(request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if tag in (shown.strip().removeprefix("W/") for shown in known.split(",")):
            return Response(None, 304, headers)
        return Response(body, 200, headers, _TYPES[path.suffix])

    return Route(at, file, methods=["GET"], include_in_schema=False)
