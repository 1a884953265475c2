"""Hands what pip was told on this machine to a container: `pip_config.py CHECKOUT FILE`.

Writes FILE as a pip.conf whose CA bundle is the container's own, and prints the local directories that it names, one a
line, for bind mounts. Standard library only.
"""

import os
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

PLACES = ("index-url", "extra-index-url", "find-links")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def local(place: str) -> Path | None:
    """The directory that a file: URL or a path means; an index lies beside its files, so one level up for it."""
    if place.startswith("file:"):
        path = Path(unquote(urlsplit(place).path))
        return path.parent if path.name == "simple" else path
    return Path(place) if place.startswith("/") else None


def main() -> None:
    """Write the file, print the directories."""
    sys.path.insert(0, sys.argv[1])
    from berth.package_sources import pip_settings

    settings = pip_settings(os.environ)
    if "cert" in settings or os.environ.get("SSL_CERT_FILE"):
        settings["cert"] = BUNDLE
    lines = [f"{name} = {value.replace(chr(10), ' ')}\n" for name, value in settings.items()]
    Path(sys.argv[2]).write_text("[global]\n" + "".join(lines))
    places = [place for name in PLACES for place in settings.get(name, "").split()]
    for directory in sorted({path for place in places if (path := local(place)) and path.is_dir()}):
        print(directory)


if __name__ == "__main__":
    main()
