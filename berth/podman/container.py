"""One service of the Compose model in the words of a Quadlet unit."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from berth.deployment import Deployment
from engine import names
from engine.prepare import READERS

Json = dict[str, Any]
PREFIX = "berth"
# Of the volume that Compose's first step fills, the one part that is no secret: how far a start is.
_PHASE = "/run/berth"
_SECRETS = "/run/secrets"

# Said otherwise here, or of no meaning to Podman: how an image is made and pulled, and where logs go (the journal).
_ELSEWHERE = {
    *("build", "command", "container_name", "depends_on", "entrypoint", "env_file", "environment", "healthcheck"),
    *("image", "logging", "networks", "pull_policy", "restart", "secrets", "stop_grace_period", "volumes"),
}
# What has a word, and which.
_WORDS = {
    "cap_add": "AddCapability",
    "cap_drop": "DropCapability",
    "devices": "AddDevice",
    "group_add": "GroupAdd",
    "pids_limit": "PidsLimit",
    "shm_size": "ShmSize",
    "tmpfs": "Tmpfs",
    "user": "User",
}
_FLAGS = {"init": "RunInit", "read_only": "ReadOnly"}
_OPTIONS = {"cpus": "--cpus", "cpuset": "--cpuset-cpus", "ipc": "--ipc"}
_OWN = {"deploy", "ports", "runtime", "security_opt", "ulimits"}
_NO_NEW_PRIVILEGES = "no-new-privileges:true"
_UNITS = {"h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True)
class Mount:
    """One mount: of a volume that has a unit of its own, or of a path of the machine."""

    source: str
    target: str
    options: tuple[str, ...] = ()
    name: str = ""

    @property
    def volume(self) -> str:
        """The volume's unit, or nothing."""
        return self.source if self.name else ""

    def __str__(self) -> str:
        return ":".join([self.source, self.target, *([",".join(self.options)] if self.options else [])])


def check(name: str, service: Json) -> None:
    """Raise ValueError for what a unit has no word for: nothing is left out in silence."""
    known = {*_ELSEWHERE, *_WORDS, *_FLAGS, *_OPTIONS, *_OWN}
    strange = sorted(key for key in service if key not in known and service[key])
    if strange or service.get("command") or service.get("entrypoint"):
        words = ", ".join(strange) or "command"
        raise ValueError(f"the service {name} has {words}, for which a Quadlet unit has no word")
    if service.get("runtime") not in (None, "runc"):
        raise ValueError(f"the service {name} asks for the runtime {service['runtime']}, which is Docker's")
    if others := set(service.get("security_opt") or []) - {_NO_NEW_PRIVILEGES}:
        raise ValueError(f"the service {name} has the security option {sorted(others)[0]}, which is not known here")


def words(service: Json) -> Json:
    """What the service says of its container, by Quadlet's key."""
    found: Json = {key: service[said] for said, key in _WORDS.items() if service.get(said)}
    found |= {key: "true" for said, key in _FLAGS.items() if service.get(said)}
    if "cap_drop" in service:
        found["DropCapability"] = [word.lower() for word in service["cap_drop"]]
    if _NO_NEW_PRIVILEGES in (service.get("security_opt") or []):
        found["NoNewPrivileges"] = "true"
    found["AddDevice"] = [*map(_device, service.get("devices") or []), *_cards(service)]
    found["Ulimit"] = [f"{kind}={_limit(value)}" for kind, value in (service.get("ulimits") or {}).items()]
    found["PublishPort"] = [_port(port) for port in service.get("ports") or []]
    found["PodmanArgs"] = [f"{option}={service[said]}" for said, option in _OPTIONS.items() if service.get(said)]
    return found


def health(service: Json, checks: Mapping[str, str]) -> Json:
    """Its health check: what Compose says of one, and the module that its image brings for it; nothing without one.

    With one `systemctl start` returns when the container is of use, not when it is there.
    """
    said = service.get("healthcheck") or {}
    if service["image"] not in checks or said.get("disable"):
        return {}
    command = json.dumps(["CMD", "python", "-P", "-m", checks[service["image"]]])
    return {
        "HealthCmd": command,
        "HealthInterval": said["interval"],
        "HealthTimeout": said["timeout"],
        "HealthRetries": said["retries"],
        # Often at first; it may fail until systemd's own bound for a start.
        "HealthStartupCmd": command,
        "HealthStartupInterval": said["start_interval"],
        "HealthStartupTimeout": said["timeout"],
        "HealthStartupRetries": 0,
        "Notify": "healthy",
    }


def mounts(service: Json) -> list[Mount]:
    """Its volumes and files. What Compose hands out as secrets comes as Podman's; an empty file is none."""
    found = []
    for each in service.get("volumes") or []:
        options = ("ro",) if each.get("read_only") else ()
        if each["target"] == _SECRETS or each["source"] == "/dev/null":
            continue
        if each["type"] == "bind":
            found.append(Mount(each["source"], each["target"], options))
            continue
        name = "phase" if each["target"] == _PHASE else each["source"]
        # The image has no such folder that could say whose it is.
        owned = ("U",) if name == "phase" and not options else ()
        found.append(Mount(f"{PREFIX}-{name}.volume", each["target"], options or owned, f"{PREFIX}_{name}"))
    return found


def secrets_of(deployment: Deployment) -> dict[str, tuple[str, ...]]:
    """By service, the secrets that this deployment has for it."""
    given = {"hf_token": names.HF_TOKEN, "vllm_api_key": names.API_KEY}
    there = {secret for secret, name in given.items() if deployment.value(name)}
    return {service: tuple(secret for secret in own if secret in there) for service, own in READERS.items()}


def settings(deployment: Deployment, service: Json) -> dict[str, str]:
    """What is in the container's environment, secrets empty. Raises ValueError for a value of several lines."""
    environment: Mapping[str, str | None] = service.get("environment") or {}
    # Compose prints a dollar twice, so that it could read its own words again.
    found = {name: value.replace("$$", "$") for name, value in sorted(environment.items()) if value is not None}
    for name, value in found.items():
        if "\n" in value or "\r" in value:
            raise ValueError(f"{deployment.where(name)}{name} has several lines, which an env file cannot hold")
    return {name: "" if name in names.SECRETS else value for name, value in found.items()}


def start_seconds(service: Json) -> int:
    """How long a start may take: the health check's start period, and a minute."""
    return _seconds((service.get("healthcheck") or {}).get("start_period", "1m")) + 60


def stop_seconds(service: Json) -> int:
    """How long running answers may take to finish before the container is killed."""
    return _seconds(service.get("stop_grace_period", "10s"))


def _seconds(duration: str) -> int:
    """Compose's durations, such as 1h0m0s."""
    return sum(int(float(number) * _UNITS[unit]) for number, unit in re.findall(r"([\d.]+)([hms])(?!s)", duration))


def _limit(value: object) -> str:
    return f"{value['soft']}:{value['hard']}" if isinstance(value, dict) else str(value)


def _port(port: Json) -> str:
    address = port.get("host_ip", "")
    host = f"{f'[{address}]' if ':' in address else address}:" if address else ""
    return f"{host}{port['published']}:{port['target']}"


def _device(device: Json | str) -> str:
    if isinstance(device, str):
        return device
    return ":".join((device["source"], device["target"], device.get("permissions", "rwm")))


def _cards(service: Json) -> list[str]:
    """NVIDIA's cards by the names that its container toolkit writes for Podman (CDI)."""
    resources = (service.get("deploy") or {}).get("resources", {}).get("reservations", {})
    found = []
    for wanted in resources.get("devices") or []:
        kind = f"{wanted.get('driver')}.com/gpu"
        count = wanted.get("count", -1)
        numbers = wanted.get("device_ids") or (["all"] if count == -1 else [str(number) for number in range(count)])
        found += [f"{kind}={number}" for number in numbers]
    return found
