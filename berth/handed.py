"""The settings that a deployment hands to a place that reads no env file of this machine: a job, a ConfigMap."""

import re

from berth.deployment import Deployment
from berth.paths import ROOT
from engine import names

_LISTED = re.compile(r"^  (\w+):$", re.MULTILINE)


def settings(deployment: Deployment) -> dict[str, str]:
    """What the files set, and what the shell sets of the names that Compose hands over too; no secret is in it."""
    listed = _LISTED.findall((ROOT / "compose" / "settings.yaml").read_text())
    merged = {name: deployment.shell[name] for name in listed if deployment.shell.get(name)}
    merged |= {name: setting.value for name, setting in deployment.settings.items() if setting.value}
    merged[names.DEVICE] = deployment.device
    return {name: value for name, value in sorted(merged.items()) if name not in names.SECRETS}


# What of it concerns the machine that a container runs on, or its door, which is settled there.
_OF_A_MACHINE = re.compile(
    r"BERTH_\w+|COMPOSE_\w+|BIND_ADDR|LLM_USVC_\w+|LLM_VLLM_(HOST|PORT|ENDPOINT)|VLLM_(HOST|PORT)"
)
_FILES = {
    *("LLM_API_KEYS_FILE", "LLM_TLS_CERT_FILE", "LLM_TLS_KEY_FILE"),
    *(names.API_KEY_FILE, names.HF_TOKEN_PATH, names.STORE_KEYS),
}


def to_a_pod(deployment: Deployment) -> dict[str, str]:
    """The settings without what concerns this machine: its ports, its files, its Compose project."""
    told = settings(deployment).items()
    return {name: value for name, value in told if not _OF_A_MACHINE.fullmatch(name) and name not in _FILES}
