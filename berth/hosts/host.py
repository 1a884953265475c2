"""One Docker host: its engine through docker-py's SSH transport, its networks through one command of ssh."""

import contextlib
import json
import os
import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING, Any

from berth import images
from berth.errors import BerthError, Exit, Problem, failed
from berth.host import dockers
from berth.host.container_end import last_end
from berth.paths import ROOT
from berth.progress import Progress
from engine.phases import PULLING, Phase

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_SERVICE = "com.docker.compose.service"
_FILES = "com.docker.compose.project.config_files"
CONNECT_S = 15
# A machine that dies under a connection is given up, too: three words without an answer.
_TOLD = ("BatchMode=yes", f"ConnectTimeout={CONNECT_S}", f"ServerAliveInterval={CONNECT_S // 3}")
_SSH = ("ssh", *(f"-o{word}" for word in _TOLD))
# What ssh and Docker take for a destination, and nothing that either would take for an option.
_NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9][A-Za-z0-9_.-]*(?::\d{1,5})?")


@dataclass(frozen=True)
class Host:
    """A machine as ssh takes it: an alias of its configuration, or [user@]name[:port]."""

    name: str

    def __post_init__(self) -> None:
        """Raise BerthError (exit code 2) for a name that is none."""
        if not _NAME.fullmatch(self.name):
            hint = "give [user@]host[:port], or an alias of ~/.ssh/config, with commas between hosts"
            raise failed(f"--hosts: {self.name!r} is no machine's name", hint, Exit.BAD_SETTING)

    @property
    def address(self) -> str:
        """As DOCKER_HOST takes it."""
        return f"ssh://{self.name}"

    @cached_property
    def client(self) -> "DockerClient":
        """Its engine, through the user's own ssh. Raises docker-py's errors."""
        from docker import DockerClient
        from docker.transport import sshconn

        vars(sshconn)["SSHSocket"] = _socket(sshconn.SSHSocket)
        client = DockerClient(base_url=self.address, use_ssh_client=True, timeout=60)
        client.api.timeout = None  # type: ignore[assignment] # a followed log may be silent for hours
        return client

    def ssh(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there; it asks no question."""
        name, _, port = self.name.partition(":")
        words = [*_SSH, *(["-p", port] if port else []), "--", name, command]
        return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def problem(self) -> Problem | None:
        """Why it cannot be used, or None."""
        done = self.ssh("docker version --format '{{.Server.Version}}'")
        if done.returncode == 0:
            return None
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if done.returncode == 255:
            hint = f"ssh must open it without a question: ssh -o BatchMode=yes {self.name} true"
            return Problem(f"{self.name} cannot be reached ({said})", hint, Exit.MISSING_PREREQUISITE)
        hint = "Docker Engine 26 or newer must run there, and that user must be in the group docker"
        return Problem(f"{self.name}: no Docker Engine answers ({said})", hint, Exit.MISSING_PREREQUISITE)

    def networks(self) -> list[IPv4Interface]:
        """Its addresses with their networks, the likeliest fabric first; none where it does not tell."""
        done = self.ssh("PATH=$PATH:/usr/sbin:/sbin ip -json -4 address show up scope global")
        return interfaces(done.stdout)

    def containers(self, project: str) -> dict[str, "Container"]:
        """This checkout's containers of a Compose project by service name. Raises BerthError."""
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        labels = [f"com.docker.compose.project={project}", "com.docker.compose.oneoff=False"]
        try:
            found = self.client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
        except (DockerException, RequestException, OSError) as error:
            lost = Problem(f"{self.name}: its Docker Engine broke off ({error})", "try it again")
            raise BerthError(self.problem() or lost) from error
        ours = str(ROOT / "compose") + os.sep
        return {each.labels[_SERVICE]: each for each in found if each.labels.get(_FILES, "").startswith(ours)}

    def ended(self, engine: "Container | None") -> Problem | None:
        """How the engine's container ended, also when Docker has started it again; None in its first life."""
        if engine is None:
            return Problem(f"{self.name}: the engine's container is gone", f"ssh {self.name} docker ps -a")
        if (end := last_end(self.client, engine)) is None:
            return None
        why = "was killed for lack of memory" if end.out_of_memory else f"ended with exit code {end.code}"
        known = [code for code in (Exit.BAD_SETTING, Exit.MISSING_PREREQUISITE) if code == end.code]
        return Problem(f"{self.name}: the engine {why}", "scripts/berth logs engine", *(known or [Exit.FAILED]))

    def layers(self, tag: str) -> list[str]:
        """The layers of the image that it has under this name; none where it has none."""
        return _layers(self.client, tag)

    def provide(self, image: images.Image, progress: Progress) -> None:
        """Have the image there: pulled where its name names a registry, else brought from here. Raises BerthError.

        An image of this machine that has changed since is brought again.
        """
        if image.is_published:
            if not self.layers(image.tag):
                self._pull(image.tag, progress)
            return
        here = _layers_here(image.tag)
        if not here:
            if not self.layers(image.tag):
                hint = "make it here with scripts/berth build, or set BERTH_REGISTRY to a registry that has it"
                raise failed(f"neither {self.name} nor this machine has {image.tag}", hint, Exit.MISSING_PREREQUISITE)
        elif self.layers(image.tag) != here:
            self._bring(image.tag, progress)

    def _pull(self, tag: str, progress: Progress) -> None:
        from docker.errors import DockerException

        progress.show(Phase(PULLING, None, f"{tag} on {self.name}"))
        try:
            repository, _, version = tag.rpartition(":")
            self.client.images.pull(repository, version)
        except DockerException as error:
            raise failed(f"{self.name}: pulling {tag} failed: {error}", "log in there with docker login") from error

    def _bring(self, tag: str, progress: Progress) -> None:
        """Docker's own archive through a pipe; layers that are there already are passed over by the engine."""
        progress.show(Phase(PULLING, None, f"{tag} from this machine to {self.name}"))
        with subprocess.Popen(["docker", "image", "save", tag], stdout=subprocess.PIPE) as saving:
            loading = ["docker", "--host", self.address, "image", "load", "--quiet"]
            done = subprocess.run(loading, stdin=saving.stdout, capture_output=True, text=True)
        if done.returncode or saving.returncode:
            said = (done.stderr.strip().splitlines() or ["the copy broke off"])[-1]
            hint = f"by hand: docker save {tag} | docker -H {self.address} load"
            raise BerthError(Problem(f"{tag} could not be brought to {self.name}: {said}", hint))


def _socket(theirs: Any) -> Any:
    """docker-py's (7.2), which otherwise fails to close a connection that the other end has closed."""

    class Socket(theirs):  # type: ignore[misc]
        def close(self) -> None:
            with contextlib.suppress(BrokenPipeError):
                super().close()

    return theirs if theirs.__name__ == Socket.__name__ else Socket


def _layers(client: "DockerClient", tag: str) -> list[str]:
    from docker.errors import ImageNotFound

    try:
        return [str(layer) for layer in client.images.get(tag).attrs["RootFS"]["Layers"]]
    except ImageNotFound:
        return []


def _layers_here(tag: str) -> list[str]:
    """Those of this machine's engine, where there is one."""
    try:
        return _layers(dockers.client(), tag)
    except dockers.Unreachable:
        return []


# Bridges of container engines and virtual machines join nothing but one machine.
_LOCAL = re.compile(r"docker|br-|virbr|veth|cni|podman|lxc|flannel|cali|tun|tap|lo$")
_FABRIC = re.compile(r"ib|hsn|bond")


def interfaces(said: str) -> list[IPv4Interface]:
    """What `ip -json address` says of networks that other machines may be on; nothing where that is no such thing."""
    try:
        found = [
            (not _FABRIC.match(one["ifname"]), IPv4Interface(f"{own['local']}/{own['prefixlen']}"))
            for one in json.loads(said)
            for own in one.get("addr_info", [])
            if not _LOCAL.match(one["ifname"])
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return [interface for _, interface in sorted(found, key=lambda each: each[0])]


def meeting_place(networks: list[list[IPv4Interface]]) -> str | None:
    """The first host's address in the first of its networks that all the others are in, too."""
    head, *others = networks
    for own in head:
        if all(any(other.ip in own.network for other in of_one) for of_one in others):
            return str(own.ip)
    return None
