"""Where this site gets Python packages from: what pip has been told, for uv and for image builds.

uv does not read pip's configuration, so a site with a mirror would have to say everything twice. Run as a program,
this prints `export UV_…` lines for a shell. Standard library only: it runs before any environment exists.
"""

import configparser
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

SYSTEM = Path("/etc/pip.conf")
# uv has no variable for pip's no-index; an index that is not there holds no package, and asks no network.
NO_INDEX = "file:///nonexistent"


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    """pip's configuration files, weakest first (the order of pip's manual)."""
    if environ.get("PIP_CONFIG_FILE") == os.devnull:
        return
    home = Path(environ.get("HOME") or "/")
    for directory in reversed((environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")):
        yield Path(directory) / "pip" / "pip.conf"
    yield SYSTEM
    yield home / ".pip" / "pip.conf"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    yield Path(sys.prefix) / "pip.conf"
    if given := environ.get("PIP_CONFIG_FILE"):
        yield Path(given)


def pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What pip would use for `pip install`, by option name ("index-url"). Unreadable files count as absent."""
    merged: dict[str, str] = {}
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for file in _files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, configparser.Error):
            continue
        for section, found in sections.items():
            if parser.has_section(section):
                found.update({name.replace("_", "-"): value for name, value in parser.items(section) if value})
    merged.update(sections["global"])
    merged.update(sections["install"])
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            merged[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return merged


def _index_off(pip: Mapping[str, str]) -> bool:
    return pip.get("no-index", "").lower() in {"1", "true", "yes", "on"}


def for_uv(environ: Mapping[str, str]) -> dict[str, str]:
    """The UV_* names that say the same as pip's configuration. Names that are already set are left out."""
    pip = pip_settings(environ)
    found: dict[str, str] = {}
    if _index_off(pip):
        found["UV_DEFAULT_INDEX"] = NO_INDEX
    elif index := pip.get("index-url"):
        found["UV_DEFAULT_INDEX"] = index
    extra = pip.get("extra-index-url", "").split()
    if extra and not _index_off(pip):
        found["UV_INDEX"] = " ".join(extra)
        # pip takes the best version of all indexes; uv by default only looks at the first that knows the name.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if links := pip.get("find-links", "").split():
        found["UV_FIND_LINKS"] = ",".join(links)
    if hosts := pip.get("trusted-host", "").split():
        found["UV_INSECURE_HOST"] = " ".join(hosts)
    if cert := pip.get("cert"):
        found["SSL_CERT_FILE"] = cert
    if seconds := pip.get("timeout", pip.get("default-timeout")):
        found["UV_HTTP_TIMEOUT"] = seconds
    return {name: value for name, value in found.items() if not environ.get(name)}


def _local_directory(place: str) -> Path | None:
    path = Path(unquote(urlsplit(place).path)) if place.startswith("file:") else Path(place)
    return path if path.is_dir() else None


def for_build(environ: Mapping[str, str]) -> dict[str, str]:
    """The BERTH_* names of an image build that follow from pip's configuration; names already set are left out.

    Only what a build can reach: an index by HTTP or none at all, one directory of wheels, a bundle of CA certificates.
    """
    pip = pip_settings(environ)
    found: dict[str, str] = {}
    index = environ.get("UV_DEFAULT_INDEX") or (NO_INDEX if _index_off(pip) else pip.get("index-url", ""))
    if index.startswith(("http://", "https://")) or index == NO_INDEX:
        found["BERTH_PACKAGE_INDEX"] = index
    wheels = [path for place in pip.get("find-links", "").split() if (path := _local_directory(place))]
    if wheels:
        found["BERTH_WHEELS"] = str(wheels[0])
    bundle = pip.get("cert") or environ.get("SSL_CERT_FILE", "")
    if bundle and Path(bundle).is_file():
        found["BERTH_CA_BUNDLE"] = bundle
    return {name: value for name, value in found.items() if not environ.get(name)}


def main() -> None:
    """Print the exports for a shell."""
    for name, value in for_uv(os.environ).items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
