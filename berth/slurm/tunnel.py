"""The way from this machine to a job's door: which ssh command, and what it means when ssh complains.

A tunnel has a connection of its own: `ssh -N -L` over a shared one (ControlMaster) hands the forwarding to the process
that owns the connection and returns, so nobody could tell whether the tunnel lives, and it would outlive its parent.
Only where the user's own configuration shares connections is that one used: a second might ask for a second factor.
"""

import re
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from berth.slurm import ssh
from berth.slurm.cluster import Cluster
from berth.slurm.site import Site
from berth.slurm.store import EndpointFile

LOOPBACK = "127.0.0.1"
SHARED = Path(__file__).with_name("shared_tunnel.sh")
# ssh takes the first value that it is given, so these stand before the login node's own options.
OWN_CONNECTION = ("-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes")
NO_QUESTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=15")
ALIVE = ("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3")


@dataclass(frozen=True)
class Route:
    """Where a door is, as seen by the machine `destination` (None: by this one), which is reached through `via`."""

    host: str
    port: int
    destination: str | None = None
    via: str | None = None


def route(endpoint: EndpointFile, cluster: Cluster, site: Site) -> Route:
    """The way to a run's door on this site. Raises nothing: an endpoint that has no port yet gets port 0."""
    login = cluster.destination
    if site.transport == "job":
        # The job's tunnel ends on the loopback interface of one machine, which need not be the one that ssh chose.
        port, host = endpoint.login_port or 0, site.tunnel_host.rpartition("@")[2]
        here = login.rpartition("@")[2] if login else socket.gethostname()
        if host and host.partition(".")[0] != here.partition(".")[0]:
            return Route(LOOPBACK, port, _same_user(login or site.tunnel_host, host), login)
        return Route(LOOPBACK, port, login)
    if site.transport == "jump":
        node = _same_user(login, endpoint.node) if login else endpoint.node
        return Route(endpoint.host, endpoint.port, node, login)
    return Route(endpoint.host, endpoint.port, login)


def _same_user(login: str, host: str) -> str:
    """The user of `login` on another machine."""
    user, at, _ = login.rpartition("@")
    return f"{user}{at}{host}"


def forward(way: Route, local_port: int, cluster: Cluster) -> list[str]:
    """The command that makes a route's door answer on a port of this machine's loopback interface."""
    assert way.destination
    spec = f"{LOOPBACK}:{local_port}:{way.host}:{way.port}"
    if not way.via and way.destination == cluster.destination and ssh.shares(way.destination):
        return ["sh", str(SHARED), spec, way.destination, *cluster.ssh_options()]
    options = [*OWN_CONNECTION, *cluster.ssh_options()]
    if way.via:  # ssh -J would use none of our options for the hop
        hop = shlex.join(["ssh", *cluster.ssh_options()]).replace("%", "%%") + f" -W '[%h]:%p' {shlex.quote(way.via)}"
        # Compute nodes come and go, and the way to them is through a machine that is known.
        options += ["-o", f"ProxyCommand={hop}", "-o", "StrictHostKeyChecking=accept-new"]
        options += ["-o", f"HostKeyAlias={way.destination.rpartition('@')[2]}.{way.via.rpartition('@')[2]}"]
    return ["ssh", *options, "-N", "-L", spec, way.destination]


def reverse(destination: str, port: int, local_port: int) -> list[str]:
    """The command that makes a port of this machine answer on another machine's loopback interface; 0: on a free one.

    The address is given, because without it sshd is content with one of 127.0.0.1 and ::1 when the other is taken.
    """
    spec = f"{LOOPBACK}:{port}:{LOOPBACK}:{local_port}"
    return ["ssh", *OWN_CONNECTION, *NO_QUESTIONS, *ALIVE, "-N", "-R", spec, destination]


def free_port() -> int:
    """A port of the loopback interface that nobody holds at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


# What ssh says, what it means, what helps. The first that matches counts, so the particular stands before the general.
_MEANINGS = (
    (
        r"pam_slurm_adopt|no active jobs on this node",
        "the node lets nobody in who has no job on it",
        "set SITE_TRANSPORT=direct, or job, in the site file",
    ),
    (
        r"administratively prohibited",
        "{machine} forbids port forwarding",
        "set SITE_TRANSPORT=jump, or job, in the site file",
    ),
    (
        r"open failed: connect failed",
        "{machine} does not reach the door of the job: {said}",
        "is the job still running? scripts/berth ls; behind a firewall set SITE_TRANSPORT=jump, or job",
    ),
    (
        r"remote port forwarding failed for listen port",
        "{machine} does not give out that port: it is taken, or forwarding is forbidden there",
        "choose another port, or none",
    ),
    (
        r"shared connection .* has been closed",
        "{said}",
        "open it again: ssh {machine}",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "{machine} does not let this user in without a question",
        "it must work by itself: ssh -o BatchMode=yes {machine} true",
    ),
    (
        r"Host key verification failed|REMOTE HOST IDENTIFICATION",
        "the host key of {machine} is not known here",
        "log in once by hand and look at its fingerprint: ssh {machine}",
    ),
    (
        r"Could not resolve hostname",
        "no machine is called {machine}",
        "look at the name, and at ~/.ssh/config",
    ),
    (
        r"Connection refused|timed out|No route to host|unreachable|Connection closed|closed by remote|reset by peer",
        "{machine} cannot be reached: {said}",
        "look at the network or VPN: ssh {machine} true",
    ),
)


def meaning(lines: Sequence[str], machine: str) -> tuple[str, str]:
    """What ssh's last lines mean, as (sentence, hint)."""
    for pattern, sentence, hint in _MEANINGS:
        if hit := next((line for line in reversed(lines) if re.search(pattern, line)), None):
            said = hit.rpartition("connect failed: ")[2] or hit
            return sentence.format(machine=machine, said=said), hint.format(machine=machine)
    said = lines[-1] if lines else "it says nothing"
    return f"the tunnel to {machine} does not open: {said}", f"by hand: ssh {machine} true"
