"""What is to be served: the device, the env files in their order, and the settings they add up to."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from berth import envfiles
from berth.envfiles import SHELL, Setting
from berth.errors import BerthError, Exit, Problem, failed
from berth.paths import ROOT, shown
from engine import catalog, devices, names, settings

LOCAL = Path("env") / "local.env"
DEMO = Path("env") / "models" / "demo.env"

# Host-side names and their defaults: these stand in Compose and here, nowhere else.
BIND_ADDR = ("BIND_ADDR", "127.0.0.1")
SERVICE_PORT = ("LLM_USVC_PORT", "9000")
ENGINE_PORT = (names.PORT, names.DEFAULT_PORT)


@dataclass(frozen=True)
class Deployment:
    """One deployment, read from its files and the shell, before any runtime is chosen."""

    device: str
    why_device: str
    files: tuple[Path, ...]
    settings: Mapping[str, Setting]
    shell: Mapping[str, str]
    root: Path = ROOT

    @property
    def environ(self) -> dict[str, str]:
        """The shell's environment with what the files add; the shell wins."""
        return {**self.shell, **{name: setting.value for name, setting in self.settings.items()}}

    def value(self, name: str, default: str = "") -> str:
        """The value of a name; empty means unset."""
        return self.environ.get(name) or default

    @property
    def model(self) -> str:
        """What LLM_VLLM_MODEL_NAME says, or nothing."""
        return self.value(names.MODEL)

    @property
    def short_name(self) -> str:
        """The model's own name in small letters, for what needs a name: `meta-llama/Llama-3.1-8B` is `llama-3.1-8b`."""
        return slug(self.model)

    @property
    def address(self) -> str:
        """The address that the service listens on."""
        return self.value(*BIND_ADDR)

    @property
    def certificate(self) -> str:
        """The file with the service's certificate, where it speaks HTTPS, or nothing."""
        return self.value("LLM_TLS_CERT_FILE")

    @property
    def service_port(self) -> int:
        """The service's port on this machine. Raises BerthError for a value that is no port."""
        return self._port(*SERVICE_PORT)

    @property
    def engine_port(self) -> int:
        """The engine's port on this machine. Raises BerthError for a value that is no port."""
        return self._port(*ENGINE_PORT)

    def _port(self, name: str, default: str) -> int:
        text = self.value(name, default)
        if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
            raise failed(
                f"{self.where(name)}{name}={text}: not a port",
                "a port is a whole number from 1 to 65535",
                Exit.BAD_SETTING,
            )
        return int(text)

    def where(self, name: str) -> str:
        """`file:line: ` of a setting that a file holds, for the front of a message; else nothing."""
        setting = self.settings.get(name)
        return f"{setting.source}: " if setting and setting.source != SHELL else ""

    @property
    def model_named_by_user(self) -> bool:
        """Whether the model comes from somewhere else than the device's own env file."""
        setting = self.settings.get(names.MODEL)
        own = shown(device_file(self.device, self.root))
        return bool(self.model) and not (setting and setting.source.startswith(f"{own}:"))

    def problems(self) -> list[Problem]:
        """What the launcher would refuse, each with the file and line of the setting it is about."""
        try:
            known = catalog.load(self.device, self.shell)
        except catalog.CatalogError as error:
            return [error.problem]
        found = settings.check(self.environ, known, self.device)
        return [replace(problem, sentence=self.placed(problem.sentence)) for problem in found]

    def placed(self, sentence: str) -> str:
        """A sentence that begins with a setting's name, with the file and line of that setting before it."""
        name = sentence.replace("=", " ").replace(":", " ").partition(" ")[0]
        return self.where(name) + sentence

    def offline(self) -> "Deployment":
        """The same deployment without the hub: vLLM would ask it for minutes, then fail."""
        rest = {name: setting for name, setting in self.settings.items() if name != "HF_HUB_OFFLINE"}
        return replace(self, settings=rest, shell={**self.shell, "HF_HUB_OFFLINE": "1"})  # noqa: S604 - no process

    def forced(self) -> "Deployment":
        """The same deployment, started also where it cannot fit."""
        said = {**self.settings, names.FORCE: Setting(names.FORCE, "true", "--force")}
        return replace(self, settings=said, shell={**self.shell, names.FORCE: "true"})  # noqa: S604 - no process

    def with_demo_model(self) -> "Deployment":
        """The same deployment, serving the model that comes with Berth."""
        place = len([file for file in self.files if file == device_file(self.device, self.root)])
        files = (*self.files[:place], self.root / DEMO, *self.files[place:])
        merged = envfiles.layer([envfiles.read(file, shown(file)) for file in files], self.shell)
        return replace(self, files=files, settings=merged)


def slug(model: str) -> str:
    """`meta-llama/Llama-3.1-8B` is `llama-3.1-8b`."""
    last = model.rstrip("/").rpartition("/")[2].lower()
    return re.sub(r"[^a-z0-9._-]+", "-", last).strip("-._")[:63] or "model"


def device_file(device: str, root: Path = ROOT) -> Path:
    """The env file of a device."""
    return root / "env" / f"{device}.env"


def resolve(
    given: Sequence[Path] = (), device: str | None = None, shell: Mapping[str, str] = os.environ, root: Path = ROOT
) -> Deployment:
    """Read the env files and settle the device.

    Layers, later wins: the device's file, the files given, env/local.env where there is one, the shell.
    Raises BerthError for a file that is missing or malformed, and for a device that Berth does not know.
    """
    files = [file.absolute() for file in given]
    read = {file: envfiles.read(file, shown(file)) for file in files}
    device, why = _device(device, files, read, shell, root)
    first, local = device_file(device, root), root / LOCAL
    order = [first, *[file for file in files if file not in (first, local)], *([local] if local.exists() else [])]
    layers = [read.get(file) or envfiles.read(file, shown(file)) for file in order]
    return Deployment(device, why, tuple(order), envfiles.layer(layers, shell), dict(shell), root)


def _device(
    wanted: str | None,
    files: Sequence[Path],
    read: Mapping[Path, Mapping[str, Setting]],
    shell: Mapping[str, str],
    root: Path,
) -> tuple[str, str]:
    """The device and why: asked for, named by a given file, set in one, or found on this machine."""
    known = devices.names()
    own = [(name, file) for file in files for name in known if file == device_file(name, root)]
    if len({name for name, _ in own}) > 1:
        raise failed(
            f"{' and '.join(shown(file) for _, file in own)} are for different devices",
            "give one of them",
            Exit.BAD_SETTING,
        )
    said = envfiles.layer(list(read.values()), shell).get(names.DEVICE)
    if wanted:
        choice, why = wanted, "--device"
    elif own:
        choice, why = own[0][0], shown(own[0][1])
    elif said and said.value:
        choice, why = said.value, f"{names.DEVICE} in {said.source}"
    elif shell.get(names.DEVICE):
        choice, why = shell[names.DEVICE], f"{names.DEVICE} in {SHELL}"
    else:
        found = devices.detect()
        name, detection = next(iter(found.items()))
        return name, detection.why
    if choice not in known:
        raise failed(f"{choice}: no such device ({why})", f"known devices: {', '.join(known)}", Exit.BAD_SETTING)
    return choice, why


def check_settings(deployment: Deployment) -> None:
    """Raise BerthError with everything that is wrong with the settings (exit code 2)."""
    problems = deployment.problems()
    if problems:
        raise BerthError(problems)
    _ = deployment.engine_port, deployment.service_port
