"""Units for a systemd host with Podman (Quadlet), made of what Compose makes of a deployment's files.

So mounts, limits, devices and what is locked down stand in compose/ alone. Secrets are Podman's own, by name; what an
env file says of them is in no unit.
"""

from typing import Any

from berth.deployment import Deployment
from berth.errors import Exit, failed
from berth.podman import container
from berth.podman.container import PREFIX, Json
from berth.runtimes import ENGINE, SERVICE
from berth.runtimes.compose import FIRST_STEP
from berth.runtimes.compose_cli import ComposeCli

NETWORK = f"{PREFIX}.network"


def files(deployment: Deployment) -> dict[str, str]:
    """The units, and the files with their settings, by name.

    Raises BerthError (exit code 2) for what no unit can say.
    """
    model = ComposeCli().model(deployment)
    secrets = container.secrets_of(deployment)
    found = {NETWORK: _unit("Berth: its own network", {"Network": {"NetworkName": PREFIX}})}
    # Compose's first step hands out secrets and checks settings: here Podman does the one and the launcher the other.
    services = {name: service for name, service in model["services"].items() if name != FIRST_STEP}
    checks = {services[name]["image"]: f"{module}.healthcheck" for name, module in _CHECKED.items()}
    volumes: dict[str, str] = {}
    for name, service in services.items():
        try:
            settings = container.settings(deployment, service)
            container.check(name, service)
        except ValueError as error:
            raise failed(str(error), _HINT, Exit.BAD_SETTING) from None
        mounts = container.mounts(service)
        volumes |= {mount.volume: mount.name for mount in mounts if mount.volume}
        found[f"{PREFIX}-{name}.container"] = _container(
            name, service, [str(mount) for mount in mounts], secrets, container.health(service, checks)
        )
        found[f"{PREFIX}-{name}.env"] = "".join(f"{key}={value}\n" for key, value in settings.items())
    for unit, name in sorted(volumes.items()):
        found[unit] = _unit(f"Berth: the volume {name}", {"Volume": {"VolumeName": name}})
    return found


# The images' own checks. Podman keeps no health check with an image.
_CHECKED = {ENGINE: "engine", SERVICE: "llm_service"}
_HINT = "take that overlay out of COMPOSE_FILE, or run these Compose files under Podman: docs/podman.md"


def _container(name: str, service: Json, mounts: list[str], secrets: dict[str, tuple[str, ...]], health: Json) -> str:
    others = [f"{PREFIX}-{other}.service" for other in service.get("depends_on") or {} if other != FIRST_STEP]
    start_s, stop_s = container.start_seconds(service), container.stop_seconds(service)
    sections: dict[str, Any] = {
        "Container": {
            "ContainerName": f"{PREFIX}-{name}",
            "Image": service["image"],
            "Network": NETWORK,
            "NetworkAlias": name,
            "EnvironmentFile": f"{PREFIX}-{name}.env",
            **container.words(service),
            "Volume": mounts,
            "Secret": [
                f"{PREFIX}-{secret.replace('_', '-')},type=mount,target={secret},uid=10001,gid=0,mode=0440"
                for secret in secrets.get(name, ())
            ],
            **health,
            "StopTimeout": stop_s,
        },
        "Service": {
            "Restart": "always",
            "RestartSec": 5,
            "TimeoutStartSec": start_s,
            "TimeoutStopSec": stop_s + 15,
        },
        "Install": {"WantedBy": "default.target"},
    }
    wants = {"Wants": " ".join(others)} if others else {}
    return _unit(f"Berth: {name}", sections, wants)


def _unit(description: str, sections: Json, unit: Json | None = None) -> str:
    lines = ["# Written by `berth render --runtime quadlet`.", "[Unit]", f"Description={description}"]
    lines += [f"{key}={value}" for key, value in (unit or {}).items()]
    for section, words in sections.items():
        lines += ["", f"[{section}]"]
        for key, value in words.items():
            values = value if isinstance(value, list) else [value]
            # systemd reads % as the beginning of a word of its own.
            lines += [f"{key}={each}".replace("%", "%%") for each in values]
    return "\n".join(lines) + "\n"
