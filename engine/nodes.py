"""One model over several machines: what a node's rank and the address of its head settle."""

import contextlib
import fcntl
import socket
import struct
from collections.abc import Mapping

from engine.decisions import Decision, Situation
from engine.messages import Problem

HOST_IP = "VLLM_HOST_IP"
# How the libraries of a CPU and of NVIDIA's GPUs are told the interface that joins the nodes.
GLOO, NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915  # netdevice(7)


def several(situation: Situation) -> bool:
    """Whether vLLM itself joins several machines; with Ray it does not."""
    return situation.number("nnodes") > 1 and situation.values.get("distributed-executor-backend") != "ray"


def decide(situation: Situation) -> list[Decision]:
    """The executor that needs no Ray, and the address and the interface by which this machine reaches the head."""
    if not several(situation):
        return []
    backend = ("--distributed-executor-backend", "mp")
    found = [Decision(" ".join(backend), "vLLM's own way over several machines", args=backend)]
    if "distributed-executor-backend" in situation.values:
        found = []
    return [*found, *_network(situation)]


def _network(situation: Situation) -> list[Decision]:
    environ, head = situation.environ, situation.values.get("master-addr", "")
    named = _named(environ)
    address = environ.get(HOST_IP) or (addresses().get(named) if named else towards(head))
    if not address or address.startswith("127."):  # all nodes on one machine need no telling
        return []
    interface = named or next((name for name, own in addresses().items() if own == address), None)
    wanted = {HOST_IP: address, **({GLOO: interface, NCCL: interface} if interface else {})}
    missing = {name: value for name, value in wanted.items() if name not in environ}
    why = "as named" if named else f"the way from here to the head, {head}"
    return [Decision(f"{name}={value}", why, {name: value}) for name, value in missing.items()]


def problems(situation: Situation) -> list[Problem]:
    """An interface that is not there, and a head whose name nobody knows: vLLM would wait for its time-out."""
    if not several(situation):
        return []
    named, head = _named(situation.environ), situation.values.get("master-addr", "")
    if named and named not in addresses():
        here = ", ".join(f"{name} ({address})" for name, address in addresses().items())
        return [Problem(f"this machine has no network interface {named} with an address", f"it has {here}")]
    if head and not named and HOST_IP not in situation.environ and towards(head) is None:
        hint = "give the head's address as the other nodes reach it, the same on every node"
        return [Problem(f"VLLM_MASTER_ADDR={head}: there is no way from here to it", hint)]
    return []


def _named(environ: Mapping[str, str]) -> str | None:
    """The interface that the settings name, where it is one plain name."""
    name = environ.get(GLOO) or environ.get(NCCL) or ""
    return name if name and not set(name) & set(",^=") else None


def addresses() -> dict[str, str]:
    """The IPv4 address of each network interface that has one."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                reply = fcntl.ioctl(asked, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                found[name] = socket.inet_ntoa(reply[20:24])
    return found


def towards(head: str) -> str | None:
    """The address of this machine that the head sees; None where no way leads there. Nothing is sent."""
    try:
        family, *_, place = socket.getaddrinfo(head, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect(place)
            return str(way.getsockname()[0])
    except (OSError, UnicodeError):
        return None
