"""The site file: what is particular about one cluster, read from NAME=value lines as env files are."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from berth import envfiles
from berth.errors import Exit, failed
from berth.paths import ROOT, STATE, shown

DEFAULT_FILE = ROOT / "apptainer" / "site.env"
GRES = "--gpus-per-node={n}"
TRANSPORTS = ("direct", "jump", "job")
_PREFIX = "SITE_"


@dataclass(frozen=True)
class Site:
    """One cluster. Each field is the SITE_ name in lower case; empty means that the site does not say."""

    login: str = ""
    scratch: str = ""
    account: str = ""
    partition: str = ""
    qos: str = ""
    constraint: str = ""
    gres: str = ""
    cpus_per_task: str = ""
    mem: str = ""
    time: str = ""
    sbatch: str = ""
    module: str = ""
    apptainer: str = ""
    interface: str = ""
    bind: str = ""
    transport: str = ""
    tunnel_host: str = ""
    models: str = ""
    file: Path | None = None
    lines: Mapping[str, str] = field(default_factory=dict)

    def where(self, name: str) -> str:
        """`apptainer/site.env:3: ` of a field that the file sets, for the front of a message; else nothing."""
        return f"{self.lines[name]}: " if name in self.lines else ""

    @property
    def shown(self) -> str:
        """The file as a person would write it."""
        return shown(self.file) if self.file else "apptainer/site.env"


NAMES = tuple(each.name for each in fields(Site) if each.name not in ("file", "lines"))


def load(path: Path | None = None, shell: Mapping[str, str] = os.environ) -> Site:
    """Read the site file: the one given, else $BERTH_SITE, else apptainer/site.env, else a site that says nothing.

    Raises BerthError (exit code 2) for a file that is missing or malformed, and for a name that no site file has.
    """
    given = path or (Path(shell["BERTH_SITE"]) if shell.get("BERTH_SITE") else None)
    file = given or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    if file is None:
        return Site()
    file = file.absolute()
    if not file.exists():
        source = "--site" if path else "$BERTH_SITE"
        raise failed(
            f"{source} {shown(file)}: no such file", "copy apptainer/site.env.example, and edit it", Exit.BAD_SETTING
        )
    read = envfiles.read(file, shown(file))
    for name, setting in read.items():
        if name.removeprefix(_PREFIX).lower() not in NAMES or not name.startswith(_PREFIX):
            raise failed(f"{setting.source}: {name}: no such name in a site file", _hint(name), Exit.BAD_SETTING)
    values = {name.removeprefix(_PREFIX).lower(): setting for name, setting in read.items() if setting.value}
    transport = values.get("transport")
    if transport and transport.value not in TRANSPORTS:
        raise failed(
            f"{transport.source}: SITE_TRANSPORT={transport.value}: no such way to a node",
            f"one of: {', '.join(TRANSPORTS)}",
            Exit.BAD_SETTING,
        )
    return Site(
        **{name: setting.value for name, setting in values.items()},
        file=file,
        lines={name: setting.source for name, setting in values.items()},
    )


def _hint(name: str) -> str:
    known = [_PREFIX + each.upper() for each in NAMES]
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else "the names are in apptainer/site.env.example"


def root(site: Site, scratch: str = "") -> str:
    """The store's directory. `scratch` is the login node's $SCRATCH, for a site that does not say where to.

    Raises BerthError (exit code 2) where the login node is elsewhere and nobody says.
    """
    if place := site.scratch or scratch:
        return f"{place.rstrip('/')}/berth"
    if site.login:
        raise failed(
            f"{site.shown} does not say where the shared file system is, and {site.login} has no $SCRATCH",
            "set SITE_SCRATCH to a directory of yours that login node and compute nodes share",
            Exit.BAD_SETTING,
        )
    return str(STATE / "slurm")
