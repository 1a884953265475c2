"""Makes an image for Apptainer (SIF) of an engine image, unless the one that is there was made of the same build.

How the file system inside is compressed decides how long the conversion takes and how fast servers start: every node
reads the Python packages, tens of thousands of files, through Apptainer's FUSE helper. zstd at level 3 is the default,
for reasons and figures that stand in docs/apptainer.md.
"""

import os
import platform
import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from berth import sources
from berth.errors import BerthError, Exit, failed
from berth.host import apptainer, dockers
from berth.paths import ROOT, shown
from berth.progress import Progress
from berth.sifwatch import Watch
from berth.sources import Source
from engine import devices

DEFINITION = ROOT / "apptainer" / "vllm.def"
# mksquashfs' options, and the part of the unpacked size that is left (the CPU image).
COMPRESSIONS: Mapping[str, tuple[str, float]] = {
    "zstd": ("-comp zstd -Xcompression-level 3", 0.32),
    "lz4": ("-comp lz4", 0.46),
    "gzip": ("-comp gzip", 0.33),
}
DEFAULT = "zstd"
IMAGE, COMPRESSION = "berth.sif.image", "berth.sif.compression"


@dataclass(frozen=True)
class Made:
    """The image that there is now; `fresh` is whether it was made just now."""

    path: str
    device: str
    image: str
    source: str
    compression: str
    vllm: str
    bytes: int
    seconds: float
    signed: bool
    fresh: bool

    def words(self) -> str:
        """One line for people."""
        size = f"{self.bytes / 1e6:,.0f} MB, {self.compression}, vLLM {self.vllm or 'of unknown version'}"
        state = f"made in {self.seconds:.0f} s" if self.fresh else "up to date"
        return f"{self.path}: {state} ({size}{', signed' if self.signed else ''})"


@dataclass(frozen=True)
class Plan:
    """What is to be made, of what, and where to."""

    program: str
    device: str
    source: Source
    output: Path
    compression: str = DEFAULT
    key: str = ""

    def build(self, target: Path) -> list[str]:
        """Apptainer's command. %test is left to `apptainer test`: the engine image proved itself when it was built."""
        given = {
            "bootstrap": self.source.bootstrap,
            "from": self.source.place,
            "image": self.source.digest,
            "compression": self.compression,
        }
        words = [self.program, "build", "--force", "--notest", "--mksquashfs-args", COMPRESSIONS[self.compression][0]]
        if self.source.bootstrap != "docker":  # a copy of each layer, which no other image would share
            words += ["--disable-cache"]
        return [*words, *(f"--build-arg={name}={value}" for name, value in given.items()), str(target), str(DEFINITION)]

    def commands(self) -> list[str]:
        """What a dry run prints: the same by hand, with a name in place of the temporary directory's."""
        target = self.output.with_name(f".{self.output.name}.new")
        scratch = self.output.parent / ".sif"
        environ = [f"{name}={value}" for name, value in _places(scratch).items()]
        lines = [shlex.join(["mkdir", "-p", str(scratch)]), shlex.join(["env", *environ, *self.build(target)])]
        if self.key:
            lines.append(shlex.join([self.program, "sign", "--key", self.key, str(target)]))
        return [*lines, shlex.join(["mv", str(target), str(self.output)]), shlex.join(["rm", "-r", str(scratch)])]


def settle(device: str, output: Path | None, site_file: Path | None) -> tuple[str, Path]:
    """Apptainer's program on this machine, and the image's place. Raises BerthError."""
    from berth.slurm import site as sites

    if device not in devices.names():
        raise failed(f"{device}: no such device", f"one of {', '.join(devices.names())}", Exit.BAD_SETTING)
    site = sites.load(site_file)
    if site.login and not output:
        raise failed(
            f"images are made where Apptainer and the store are, and {site.shown} says that this is {site.login}",
            "run this verb there (--from docker-archive:FILE); or make it here with --output FILE and copy it",
            Exit.BAD_SETTING,
        )
    program = apptainer.find("" if site.login else site.apptainer, site.module)
    return program, (
        output or Path(sites.root(site, os.environ.get("SCRATCH", "")), "sif", f"vllm-{device}.sif")
    ).absolute()


def verify(program: str, image: Path, key: Path) -> None:
    """Check the signature of an image. Raises BerthError."""
    if not image.exists():
        raise failed(f"there is no image {image}", "make it: scripts/berth sif DEVICE", Exit.MISSING_PREREQUISITE)
    _need_key(key)
    apptainer.verify(program, str(image), str(key))


def _need_key(key: Path) -> None:
    if not os.access(key, os.R_OK):
        make = "openssl genrsa -out key.pem 3072; openssl rsa -in key.pem -pubout -out pub.pem"
        raise failed(f"there is no readable key {key}", f"make a pair: {make}", Exit.BAD_SETTING)


def plan(
    device: str, source: Source, output: Path, compression: str = DEFAULT, key: Path | None = None, program: str = ""
) -> Plan:
    """Check what can be checked before anything is made. Raises BerthError."""
    if compression not in COMPRESSIONS:
        raise failed(f"--compression {compression}: no such one", f"one of {', '.join(COMPRESSIONS)}", Exit.BAD_SETTING)
    if key:
        _need_key(key)
    sources.check(source, device, platform.machine())
    return Plan(program or apptainer.find(), device, source, output, compression, str(key or ""))


def make(plan: Plan, progress: Progress, force: bool = False) -> Made:
    """Make the image if it is missing or of another build, and sign it where a key is given. Raises BerthError.

    A file that is being made has another name: what stands in the image's place is always whole.
    """
    began = time.monotonic()
    labels = {} if force or not plan.output.exists() else _labels(plan)
    fresh = (labels.get(IMAGE), labels.get(COMPRESSION)) != (plan.source.digest, plan.compression)
    if fresh or (plan.key and not apptainer.is_signed(plan.program, str(plan.output))):
        with _workplace(plan) as place:
            target = Path(place, plan.output.name)
            if fresh:
                _convert(plan, target, Path(place), progress)
                labels = apptainer.labels(plan.program, str(target))
                sources.check_labels(labels, str(plan.source), plan.device)
            else:
                shutil.copy2(plan.output, target)  # jobs may run from the other one
            if plan.key:
                apptainer.sign(plan.program, str(target), plan.key)
            target.replace(plan.output)
    return Made(
        path=str(plan.output),
        device=plan.device,
        image=plan.source.digest,
        source=str(plan.source),
        compression=plan.compression,
        vllm=labels.get("berth.vllm.version", ""),
        bytes=plan.output.stat().st_size,
        seconds=round(time.monotonic() - began, 1),
        signed=bool(plan.key) or apptainer.is_signed(plan.program, str(plan.output)),
        fresh=fresh,
    )


def _labels(plan: Plan) -> dict[str, str]:
    """The labels of the image that is there; none for one that a power cut left half written."""
    try:
        return apptainer.labels(plan.program, str(plan.output))
    except BerthError:
        return {}


def _workplace(plan: Plan) -> "tempfile.TemporaryDirectory[str]":
    """A directory beside the image: on the same file system, so that the image can be renamed, and not in $HOME."""
    parent = plan.output.parent
    need = int(plan.source.bytes * (2 + COMPRESSIONS[plan.compression][1] * 2))  # layers, files, squashfs, SIF
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = shutil.disk_usage(parent).free
        if free < need and not os.environ.get("APPTAINER_TMPDIR"):
            raise failed(
                f"{shown(parent)} has {free / 1e9:.1f} GB free, and making this image needs {need / 1e9:.1f} GB",
                "free some, or set APPTAINER_TMPDIR and --output to places that have it",
            )
        return tempfile.TemporaryDirectory(prefix=".sif-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise failed(
            f"{shown(parent)} cannot be written to: {error.strerror}",
            "say where to with --output, or SITE_SCRATCH in the site file",
            Exit.BAD_SETTING,
        ) from error


def _places(scratch: Path) -> dict[str, str]:
    """Where Apptainer keeps what it works on, unless the user has said so: its own default is $HOME."""
    wanted = {"APPTAINER_TMPDIR": str(scratch), "APPTAINER_CACHEDIR": str(scratch / "cache")}
    return {name: place for name, place in wanted.items() if not os.environ.get(name)}


def _convert(plan: Plan, target: Path, place: Path, progress: Progress) -> None:
    """Run Apptainer and show how far it is."""
    environ = _places(place)
    if plan.source.bootstrap == "docker-daemon" and (host := dockers.host()):
        environ["DOCKER_HOST"] = host
    scratch = Path(environ.get("APPTAINER_TMPDIR") or os.environ["APPTAINER_TMPDIR"])
    part = COMPRESSIONS[plan.compression][1]
    with Watch(scratch, target, plan.source.bytes, part, progress) as watch:
        apptainer.follow(plan.build(target), environ, watch.heard)
