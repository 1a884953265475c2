"""Makes of one deployment a node for each Docker host: what each is told, what would be refused, how it is reached."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from berth import fitting
from berth.deployment import Deployment
from berth.envfiles import SHELL, Setting
from berth.errors import Exit, Problem, failed
from berth.hosts.host import Host, meeting_place
from berth.runtimes import Endpoint, Ready, local_url
from engine import ranks
from engine.decisions import Situation

OVERLAY, RAY_OVERLAY = "compose/multinode.yaml", "compose/multinode-ray.yaml"
FILES, PROFILES = "COMPOSE_FILE", "COMPOSE_PROFILES"
COUNT, RANK, HEAD_ADDRESS = "BERTH_NODES", "BERTH_NODE_RANK", "BERTH_HEAD_ADDRESS"
EXECUTOR = "BERTH_EXECUTOR"


def nodes(deployment: Deployment, hosts: Sequence[Host]) -> list[Deployment]:
    """The deployment as each host is to have it, the head first. Raises BerthError where no network joins the hosts."""
    address = deployment.value(HEAD_ADDRESS) or _find(hosts)
    overlays = [OVERLAY, *([RAY_OVERLAY] if deployment.value(EXECUTOR) == "ray" else [])]
    before = deployment.value(FILES).split(":")
    files = ":".join([*before, *(overlay for overlay in overlays if overlay not in before)])
    common = {FILES: files, PROFILES: "rank-0", COUNT: str(len(hosts)), HEAD_ADDRESS: address}
    return [
        _with(deployment, {**common, RANK: str(rank), "DOCKER_HOST": host.address}) for rank, host in enumerate(hosts)
    ]


def _with(deployment: Deployment, told: Mapping[str, str]) -> Deployment:
    """The deployment with names that count as the shell's, which beat those of the files."""
    said = {**deployment.settings, **{name: Setting(name, value, SHELL) for name, value in told.items()}}
    return replace(deployment, settings=said, shell={**deployment.shell, **told})


def _find(hosts: Sequence[Host]) -> str:
    networks = [host.networks() for host in hosts]
    if address := meeting_place(networks):
        return address
    known = "; ".join(
        f"{host.name} has {', '.join(map(str, of_one)) or 'none that it tells'}"
        for host, of_one in zip(hosts, networks, strict=True)
    )
    raise failed(
        f"no network that all hosts are in was found: {known}",
        f"set {HEAD_ADDRESS} to the address of {hosts[0].name} that the others reach",
        Exit.BAD_SETTING,
    )


def told(before: Deployment, node: Deployment) -> dict[str, str]:
    """What a node's shell has besides the deployment's own."""
    return {name: value for name, value in sorted(node.shell.items()) if before.shell.get(name) != value}


def problems(deployment: Deployment, count: int) -> list[Problem]:
    """What the launcher would refuse of so many nodes, and a number of them that an env file says otherwise."""
    said = deployment.value(COUNT)
    if said and said != str(count):
        return [Problem(f"{deployment.where(COUNT)}{COUNT}={said}, and --hosts names {count}", "name as many hosts")]
    values = {**fitting.values_of(deployment), "nnodes": str(count), "node-rank": "0", "master-addr": "head"}
    return ranks.problems(Situation(deployment.environ, values, deployment.model))


def ready(deployment: Deployment, head: Host, head_address: str) -> Ready:
    """How it is reached: by its address, or through SSH where the service listens on the head's loopback alone."""
    from berth.up import curl

    locked, port = bool(deployment.value("LLM_API_KEYS_FILE")), deployment.service_port
    tls = bool(deployment.certificate)
    door = service_url(deployment.address, port, head_address, tls=tls)
    here = Endpoint(door or local_url("127.0.0.1", port, tls=tls), "")
    way = [] if door else [f"through SSH (leave it open):  ssh -N -L {port}:127.0.0.1:{port} {head.name}", ""]
    words = [
        "",
        f"{deployment.model} is ready on {head.name}, port {port}. Ask it something:",
        "",
        *way,
        curl(here, locked),
        "",
        *(["  KEY is a key of yours, of the file that LLM_API_KEYS_FILE names there"] if locked else []),
        "  stop it with:   scripts/berth down",
        "",
    ]
    facts = {"endpoint": door, "head": head.name, "head_address": head_address}
    return Ready(here, (deployment.model,), "\n".join(words), facts, locked)


def service_url(bound: str, port: int, head_address: str, *, tls: bool) -> str:
    """The service's URL for this machine; nothing where it listens on the head's loopback interface."""
    if bound.startswith("127.") or bound in ("::1", "localhost"):
        return ""
    return local_url(head_address if bound in ("0.0.0.0", "::", "") else bound, port, tls=tls)
