"""Two lists out of a CycloneDX file, each a package a line: the licences, and Python's packages as requirements.

Usage: python3 sbom_lists.py FILE.cdx.json    writes FILE.licences.txt and FILE.python.txt beside it
Exit codes: 0 ok, 2 the file is no CycloneDX list of components.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Package:
    """What a package manager installed; `kind` is the package URL's: deb, pypi, …"""

    kind: str
    name: str
    version: str
    licence: str


def licence(stated: list[dict[str, Any]]) -> str:
    """SPDX identifiers or expressions, else the names that are used, else "not stated"."""
    names = set()
    for entry in stated:
        one = entry.get("license") or {}
        names.add(word(entry.get("expression") or one.get("id") or one.get("name") or ""))
    return " AND ".join(sorted(names - {""})) or "not stated"


def word(text: str) -> str:
    """`text` on one line of at most 80 characters; some packages state their licence's whole text."""
    return " ".join(text.split())[:80]


def packages(text: str) -> list[Package]:
    """The packages of a CycloneDX file. Raises ValueError for a text that is none."""
    try:
        return [
            Package(
                c["purl"].split("/")[0].removeprefix("pkg:"),
                word(c["name"]),
                word(c["version"]),
                licence(c.get("licenses") or []),
            )
            for c in json.loads(text)["components"]
            if c.get("purl") and c.get("version")
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(repr(error)) from error


def licences(found: list[Package]) -> list[str]:
    """`kind name version: licence`, each once, sorted."""
    return sorted({f"{p.kind} {p.name} {p.version}: {p.licence}" for p in found}, key=str.lower)


def pins(found: list[Package]) -> list[str]:
    """`name==version` of each package for Python; a build's own suffix (+cpu) is cut, which no index knows."""
    return sorted({f"{p.name}=={p.version.partition('+')[0]}" for p in found if p.kind == "pypi"}, key=str.lower)


def main() -> int:
    """Read the file named on the command line."""
    source = Path(sys.argv[1])
    try:
        found = packages(source.read_text(encoding="utf-8"))
    except ValueError as error:
        print(f"berth: error: {source} is no CycloneDX list of components: {error}", file=sys.stderr)
        print("berth: hint: make it with scripts/sbom, or with syft -o cyclonedx-json", file=sys.stderr)
        return 2
    for name, lines in {"licences": licences(found), "python": pins(found)}.items():
        target = source.with_name(f"{source.name.removesuffix('.cdx.json')}.{name}.txt")
        target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
