"""Docker Compose's own command line: what it makes of a deployment's files."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

from berth import images, package_sources
from berth.deployment import Deployment
from berth.errors import Exit, failed
from berth.paths import ROOT, from_root
from berth.runtimes import ENGINE, SERVICE


class ComposeCli:
    """Runs it in this checkout; each deployment's files are resolved once."""

    def __init__(self) -> None:
        self._models: dict[tuple[Path, ...], dict[str, Any]] = {}

    def words(self, deployment: Deployment, *words: str) -> list[str]:
        """A command, with the deployment's env files."""
        files = [word for file in deployment.files for word in ("--env-file", from_root(file))]
        return ["docker", "compose", *files, *words]

    def run(self, command: list[str], deployment: Deployment) -> subprocess.CompletedProcess[str]:
        """Run a command of `words` to its end, whatever that is.

        Its environment is the shell's, and for builds what pip has been told of this site; the files are Compose's to
        read.
        """
        environ = {**deployment.shell, **package_sources.for_build(deployment.environ)}
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)

    def config(self, deployment: Deployment, *words: str) -> str:
        """What `docker compose config` prints. Raises BerthError."""
        command = self.words(deployment, "config", *words)
        done = self.run(command, deployment)
        if done.returncode:
            raise failed(
                f"Compose refuses this deployment: {last_line(done.stderr)}",
                f"try it yourself: {shlex.join(command)}",
                Exit.BAD_SETTING,
            )
        return done.stdout

    def project(self, deployment: Deployment) -> str:
        """The name of the project."""
        return str(self.model(deployment)["name"])

    def images_of(self, deployment: Deployment) -> list[images.Image]:
        """The engine's image, then the service's, then those that an overlay adds."""
        services = self.model(deployment)["services"]
        secrets = self.model(deployment).get("secrets", {})
        names = (ENGINE, SERVICE, *(name for name in services if "build" in services[name]))
        return list({services[name]["image"]: images.Image.of(services[name], secrets) for name in names}.values())

    def model(self, deployment: Deployment) -> dict[str, Any]:
        """What Compose makes of the deployment's files, whole. Raises BerthError."""
        if deployment.files not in self._models:
            self._models[deployment.files] = json.loads(self.config(deployment, "--format", "json"))
        return self._models[deployment.files]


def last_line(text: str) -> str:
    """The last line of what a program said."""
    return (text.strip().splitlines() or ["no message"])[-1]
