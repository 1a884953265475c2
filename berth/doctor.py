"""`berth doctor`: what this machine lacks for each device and runtime, and the remedy."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from berth import preflight, runtimes
from berth.deployment import Deployment, resolve
from berth.errors import BerthError, Exit, failed
from berth.host import dockers, hub, machine, ports
from berth.paths import STATE
from berth.runtimes import Request
from engine import devices
from engine.decisions import Situation

HEADS = ("for", "check", "found", "remedy")

# What a first start was seen to take, rounded up: vLLM for CPUs unpacked 2.5 GB, for CUDA 8.7 GB (docs/sizes).
DISK_FREE = 12 * machine.GIB
MEMORY_FREE = 6 * machine.GIB
# vLLM's message queues alone; each tensor parallel worker wants 1 GiB more.
SHARED_MEMORY = machine.GIB
# vLLM's CPU kernels come for these, one of which must be there: x86 AVX2 or AVX-512, ARM's ASIMD.
INSTRUCTION_SETS = {"avx2", "avx512f", "asimd"}


@dataclass(frozen=True)
class Finding:
    """One check. `required` says whether its failure fails the command."""

    scope: str
    check: str
    ok: bool
    found: str
    remedy: str = ""
    required: bool = False

    def row(self) -> tuple[str, str, str, str]:
        """The finding as a row of a table."""
        return self.scope, f"{'ok ' if self.ok else 'NO '} {self.check}", self.found, "" if self.ok else self.remedy


def examine(
    device: str | None = None, runtime: str | None = None, request: Request = runtimes.NOTHING
) -> list[Finding]:
    """Check this machine in general, then each device and runtime; those asked for by name are required.

    Raises BerthError (exit code 2) for a device or runtime that does not exist.
    """
    if device and device not in devices.names():
        raise failed(f"{device}: no such device", f"known devices: {', '.join(devices.names())}", Exit.BAD_SETTING)
    if runtime:
        runtimes.load(runtime, request)
    findings = list(_machine())
    for name in (device,) if device else devices.names():
        findings += _device(name, required=bool(device))
    extra: dict[str, Callable[[bool], Iterator[Finding]]] = {
        "native": _native,
        "compose": _compose,
        "slurm": lambda required: _slurm(request, device, required),
    }
    for name in (runtime,) if runtime else runtimes.NAMES:
        problem = runtimes.load(name, request if runtime else runtimes.NOTHING).unavailable()
        yes = bool(runtime)
        findings.append(
            Finding(
                name,
                "available",
                not problem,
                problem.sentence if problem else "yes",
                problem.hint if problem else "",
                yes,
            )
        )
        if name in extra and not problem:
            findings += extra[name](yes)
    return findings


def _machine() -> Iterator[Finding]:
    yield Finding("machine", "Python 3.11 or newer", True, sys.version.split()[0], required=True)
    free = machine.free_bytes(STATE)
    yield _amount("disk for Berth", free, DISK_FREE, "free some space, or move the checkout to a larger disk")
    yield _amount(
        "memory available", machine.memory_bytes(), MEMORY_FREE, "stop other programs, or use a smaller model"
    )
    yield _amount("/dev/shm", _size_of(Path("/dev/shm")), SHARED_MEMORY, "mount -o remount,size=4g /dev/shm (as root)")  # noqa: S108
    deployment = _any_deployment()
    answer = hub.ask("gpt2", deployment.environ if deployment else os.environ)
    yield Finding(
        "machine",
        "model hub reachable",
        answer.reachable,
        "yes" if answer.reachable else answer.why,
        "check the network, HTTPS_PROXY or HF_ENDPOINT; the demo model needs no hub",
    )
    if deployment:
        for name, port in (("LLM_USVC_PORT", deployment.service_port), ("LLM_VLLM_PORT", deployment.engine_port)):
            yield _port(name, port)
        yield from _service(deployment)


def _service(deployment: Deployment) -> Iterator[Finding]:
    """What the service would refuse of the settings, for instance to be reached by other machines without a key."""
    problems = preflight.service_problems(deployment)
    for problem in problems:
        yield Finding("machine", "settings of the service", False, problem.sentence, problem.hint)
    if not problems:
        locked = "clients show a key" if deployment.value("LLM_API_KEYS_FILE") else f"for {deployment.address}, no key"
        secured = ", over HTTPS" if deployment.certificate else ""
        yield Finding("machine", "settings of the service", True, f"{locked}{secured}")


def _port(name: str, port: int) -> Finding:
    free = ports.is_free("127.0.0.1", port)
    holder = None if free else ports.holder(port)
    current = runtimes.running() if not free else None
    endpoint = current.status().endpoint if current else None
    if endpoint and any(url.endswith(f":{port}") for url in (endpoint.service, endpoint.engine)):
        return Finding("machine", f"port {port} free", True, "held by Berth, which runs here")
    who = "yes" if free else f"held by {holder.name}" if holder else "in use"
    return Finding("machine", f"port {port} free", free, who, f"set {name} to another port")


def _any_deployment() -> Deployment | None:
    """What `berth up` would start; files that are wrong are `berth up`'s to complain about."""
    try:
        deployment = resolve()
        _ = deployment.service_port, deployment.engine_port
    except BerthError:
        return None
    return deployment


def _device(name: str, required: bool) -> Iterator[Finding]:
    module = devices.load(name)
    found = module.detect()
    yield Finding(
        name,
        "device here",
        found is not None,
        found.why if found else "none",
        f"install the {name} driver; or use a device that is here",
        required,
    )
    if found is None:
        return
    for problem in module.preflight(Situation(dict(os.environ), {}, None)):
        yield Finding(name, "usable", False, problem.sentence, problem.hint, required)
    if not found.accelerator:
        have = sorted(machine.cpu_flags() & (INSTRUCTION_SETS | {"avx512_bf16", "amx_bf16"}))
        enough = bool(INSTRUCTION_SETS & set(have))
        yield Finding(
            name, "instruction sets", enough, " ".join(have) or "none", "vLLM needs AVX2, AVX-512 or ASIMD", required
        )


def _native(required: bool) -> Iterator[Finding]:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    yield Finding(
        "native",
        "C++ compiler",
        bool(compiler),
        compiler or "none",
        "apt-get install g++ (without it vLLM on CPUs serves uncompiled)",
    )
    header = Path(sysconfig.get_path("include"), "Python.h")
    yield Finding(
        "native", "Python headers", header.exists(), str(header), "apt-get install python3-dev (compiling needs them)"
    )
    cache = hub.cache(os.environ)
    yield Finding(
        "native",
        "model cache writable",
        machine.writable(cache),
        str(cache),
        "set BERTH_CACHE to a directory of yours",
        required,
    )


def _compose(required: bool) -> Iterator[Finding]:
    info = dockers.client().info()
    version = dockers.compose_version() or (0, 0)
    yield Finding("compose", "Compose 2.30 or newer", True, ".".join(map(str, version)), required=required)
    yield Finding("compose", "Docker Engine", True, str(info.get("ServerVersion")), required=required)
    buildx = machine.output(["docker", "buildx", "version"])
    yield Finding(
        "compose",
        "Buildx, for building images",
        bool(buildx),
        buildx or "none",
        "install the package docker-buildx-plugin",
    )
    names = sorted(info.get("Runtimes") or {})
    yield Finding("compose", "container runtimes", True, ", ".join(names))


def _slurm(request: Request, device: str | None, required: bool) -> Iterator[Finding]:
    from berth.runtimes.slurm import Runtime
    from berth.slurm import examination

    yield from examination.examine(Runtime(request).store, device, required)


def _amount(check: str, have: int | None, want: int, remedy: str) -> Finding:
    found = "unknown" if have is None else f"{have / machine.GIB:.1f} GiB, {want / machine.GIB:.0f} wanted"
    return Finding("machine", check, have is None or have >= want, found, remedy)


def _size_of(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).total
    except OSError:
        return None
