"""Pages of other sites may call this service only if LLM_CORS_ORIGINS names them."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_METHODS = ("GET", "POST", "DELETE")
_READABLE = ("x-request-id", "retry-after", "x-berth-warning")


def allowing(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Return the application as pages from these origins may call it; the same one when there are none.

    A browser asks before it sends a key, and shows none then, so this stands in front of the lock. What a browser adds
    by itself, such as cookies, stays out: the service knows none.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=["*"],
        expose_headers=_READABLE,
        max_age=600,
    )
