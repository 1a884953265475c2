"""Who can reach the service. Where that is more than this machine, clients have to show a key."""

import ipaddress

from llm_service.config.settings import Settings


def only_here(address: str) -> bool:
    """Say whether an address to listen on is this machine's own; a name other than localhost is not."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def problems(settings: Settings) -> list[tuple[str, str]]:
    """Return a sentence and a hint when other machines would be let in without a key."""
    name, address = "LLM_USVC_HOST", settings.host
    if settings.bind_address is not None:
        name, address = "BIND_ADDR", settings.bind_address
    if settings.keys_file is not None or settings.allow_no_key or only_here(address):
        return []
    return [
        (
            f"{name}={address} lets other machines in, and they would need no key.",
            "Let LLM_API_KEYS_FILE name a file of keys (scripts/berth key add NAME --file FILE makes one), "
            "or set LLM_ALLOW_NO_KEY=true where a lock stands in front of the service.",
        )
    ]
