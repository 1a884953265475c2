"""Where an engine listens: an address of the network, or a Unix socket of this machine."""

import ipaddress
import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_SOCKET = "unix://"
_LONGEST_SOCKET_PATH = 107  # bytes; sockaddr_un holds 108, the last of them zero


def normalized(value: str) -> str:
    """Return an engine's address without /v1 and without a slash at its end; raise ValueError when it is none."""
    if value.startswith(_SOCKET):
        path = value.removeprefix(_SOCKET)
        if not path.startswith("/") or len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            raise ValueError("not a socket")
        return value
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("not an address")
    parts.port  # noqa: B018 - raises ValueError when it is no port
    return value.rstrip("/").removesuffix("/v1").rstrip("/")


def normalized_all(value: str) -> str:
    """Return one engine's address, several with commas between them, or the absolute path of a directory.

    Raises ValueError when it is none of these.
    """
    if value.startswith("/"):
        return os.path.normpath(value)
    return ",".join(dict.fromkeys(normalized(part.strip()) for part in value.split(",")))


def goes_direct(url: str) -> bool:
    """Say whether an address is this machine, a private one, or a bare name of a container network: never by proxy."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".svc", ".internal"))
    return address.is_loopback or address.is_private


@dataclass(frozen=True, slots=True)
class Address:
    """Where one engine listens, and the key that it asks for."""

    url: str
    """As `normalized` returns it."""
    key: str | None = field(default=None, repr=False)

    @property
    def socket(self) -> str | None:
        """The path of its Unix socket, if it listens on one."""
        return self.url.removeprefix(_SOCKET) if self.url.startswith(_SOCKET) else None

    @property
    def base(self) -> str:
        """What the paths of its routes are appended to."""
        return "http://localhost" if self.socket else self.url
