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
