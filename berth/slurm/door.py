"""The local door: llm_service on this machine's loopback interface, in front of every engine of one deployment.

Its address stays the same while jobs come and go, and it asks for the deployment's key: on a login node others share
the loopback interface.
"""

import os
import sys
from pathlib import Path

from berth.errors import Exit, failed
from berth.host import ports
from berth.paths import ROOT
from berth.slurm.tunnel import LOOPBACK, free_port

DRAIN_S = 5  # what a stop waits for answers that are being written
# Settings of the user's shell are for engines; the door gets its own.
_NOT_INHERITED = ("LLM_", "VLLM_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def port(directory: Path, wanted: int | None) -> int:
    """The port of a door: the one asked for, else that of the last time if it is free, else a free one.

    Raises BerthError (exit code 1) when the one asked for is taken.
    """
    if wanted and not ports.is_free(LOOPBACK, wanted):
        holder = ports.holder(wanted)
        raise failed(
            f"port {wanted} is taken" + (f" by {holder.name}" if holder else ""),
            "choose another with --port, or leave it out",
        )
    remembered = directory / "port"
    chosen = wanted or _remembered(remembered) or free_port()
    remembered.write_text(f"{chosen}\n")
    return chosen


def _remembered(file: Path) -> int | None:
    try:
        last = int(file.read_text())
    except (OSError, ValueError):
        return None
    return last if 0 < last < 65536 and ports.is_free(LOOPBACK, last) else None


def keep_key(directory: Path, key: str) -> None:
    """Write the key as a file, and as the header that curl reads (`-H @FILE`), for this user alone.

    Raises BerthError (exit code 1) where that cannot be done.
    """
    for name, text in (("api_key", key), ("authorization", f"Authorization: Bearer {key}")):
        file = directory / name
        try:
            file.unlink(missing_ok=True)
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
                opened.write(f"{text}\n")
        except OSError as error:
            raise failed(f"{file} cannot be written: {error.strerror}", "is the disk full?", Exit.FAILED) from error


def command() -> list[str]:
    """How the door is started."""
    return [sys.executable, "-P", "-m", "llm_service"]


def environ(directory: Path, listen: int) -> dict[str, str]:
    """What the door is told. The key travels as a file."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return {
        **inherited,
        "LLM_USVC_HOST": LOOPBACK,
        "LLM_USVC_PORT": str(listen),
        "LLM_VLLM_ENDPOINT": str(directory / "endpoints"),
        "LLM_API_KEYS_FILE": str(directory / "api_key"),
        "VLLM_API_KEY_FILE": str(directory / "api_key"),
        "LLM_DRAIN_TIMEOUT_SECONDS": str(DRAIN_S),
    }


def place() -> Path:
    """The directory in which the door runs: away from anything that the user's own could shadow."""
    return ROOT / "microservice"
