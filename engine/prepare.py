"""Compose's first step: hands the secrets to the services that may read them, and refuses settings that are wrong.

`python -P -m engine.prepare FOLDER`: FOLDER is the volume whose subfolders the services mount at /run/secrets.
"""

import ipaddress
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from engine import names, serve
from engine.messages import Exit, Problem, complain, say

GIVEN = Path("/run/secrets")

# Which service may read which secret; the token for the hub is no business of the service that faces the network.
READERS = {"engine": ("hf_token", "vllm_api_key"), "llm": ("vllm_api_key",)}

# A subfolder that the engine writes to, so that the service can say what a start does.
PHASE = "phase"

# The names by which env files name themselves, in the order of their layers.
LAYERS = ("BERTH_DEVICE_ENV", "BERTH_MODEL_ENV", "BERTH_LOCAL_ENV")

# Every name of the kit that is not the engine's, blank-separated; compose/settings.yaml fills it in.
KNOWN_NAMES = "BERTH_NAMES"

# The files of this machine that the service reads, the keys that its clients show and what it needs for HTTPS; and the
# one that the engine reads, the keys of an object store.
CLIENT_KEYS = "LLM_API_KEYS_FILE"
_FOR_GROUP_0 = "let group 0, and nobody else, read it: chgrp 0 FILE && chmod 640 FILE"
FILES = {
    CLIENT_KEYS: "let everybody read it (chmod 644), once it holds hashes: scripts/berth key add NAME makes them",
    "LLM_TLS_CERT_FILE": "let everybody read it (chmod 644): it holds no secret",
    "LLM_TLS_KEY_FILE": _FOR_GROUP_0,
    names.STORE_KEYS: _FOR_GROUP_0,
}
# How its other settings say yes.
YES = ("1", "on", "t", "true", "y", "yes")

# A file travels for these two; the others of names.SECRETS would stand open in `docker inspect`.
_BY_FILE = (names.HF_TOKEN, names.API_KEY)
_USE_INSTEAD = {
    "HUGGING_FACE_HUB_TOKEN": f"rename it to {names.HF_TOKEN}, which travels as a file",
    "VLLM_HF_TOKEN": f"rename it to {names.HF_TOKEN}, which travels as a file",
    "AWS_SECRET_ACCESS_KEY": f"put it into a file, and let {names.STORE_KEYS} name that (docs/models.md)",
    "S3_SECRET_ACCESS_KEY": f"put it into a file, and let {names.STORE_KEYS} name that (docs/models.md)",
}


def main() -> int:
    """Hand out the secrets, then check the settings; return 0, or the launcher's exit code for what is wrong."""
    say(checked(os.environ))
    handed = hand_out(GIVEN, Path(sys.argv[1]))
    problems = [*handed, *misplaced(os.environ), *unreadable(os.environ), *unlocked(os.environ), *unknown(os.environ)]
    for problem in problems:
        complain(problem)
    return max([serve.launch(["--check"], os.environ), *(problem.exit_code for problem in problems)])


def checked(environ: Mapping[str, str]) -> str:
    """Say which env files a typo would be found in: those that name themselves."""
    files = dict.fromkeys(environ[name] for name in LAYERS if environ.get(name))
    hint = f"a file of your own is, too, once it names itself: {LAYERS[-1]}=its/path"
    return f"checked for unknown names: {', '.join(files)} ({hint})"


def hand_out(given: Path, folder: Path) -> list[Problem]:
    """Copy each secret to the subfolder of each service that may read it; remove those that are no longer given."""
    try:
        for reader, secrets in READERS.items():
            place = folder / reader
            place.mkdir(mode=0o770, exist_ok=True)
            for secret in secrets:
                _copy(given / secret, place / secret)
        _shared(folder / PHASE)
    except OSError as error:
        return [
            Problem(
                f"the secrets cannot be handed out: {error.filename}: {error.strerror}",
                "delete the volume berth_secrets and start again; it holds nothing but them",
                Exit.FAILED,
            )
        ]
    return []


def _shared(folder: Path) -> None:
    """A folder that every user of group 0 may write to, whoever made it."""
    folder.mkdir(exist_ok=True)
    with suppress(PermissionError):  # another user's, and so made by an earlier start
        folder.chmod(0o770)


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    text = source.read_text(encoding="utf-8").strip() if source.is_file() else ""
    if text:
        # Readable by group 0, which every user that the containers may run as belongs to.
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o440), "w", encoding="utf-8") as file:
            file.write(text)


def misplaced(environ: Mapping[str, str]) -> list[Problem]:
    """Secrets that an env file put into the container's environment, where `docker inspect` shows them."""
    return [
        Problem(f"{name} would be visible in `docker inspect`", _USE_INSTEAD.get(name, "mount a file with credentials"))
        for name in names.SECRETS
        if name not in _BY_FILE and environ.get(name)
    ]


def unreadable(environ: Mapping[str, str]) -> list[Problem]:
    """Files of this machine that the containers could not read; here it keeps the engine from starting."""
    return [
        Problem(f"the file that {name} names cannot be read by the containers' user", hint)
        for name, hint in FILES.items()
        if environ.get(name) and not os.access(environ[name], os.R_OK)
    ]


def unlocked(environ: Mapping[str, str]) -> list[Problem]:
    """A service that other machines can reach, and no key to show.

    The service refuses the same, but here it keeps the engine from starting.
    """
    address, keys = environ.get("BIND_ADDR", ""), environ.get(CLIENT_KEYS, "")
    if keys or not address or _only_here(address) or environ.get("LLM_ALLOW_NO_KEY", "").lower() in YES:
        return []
    hint = (
        f"let {CLIENT_KEYS} name a file of keys (scripts/berth key add NAME --file FILE makes one), "
        "or set LLM_ALLOW_NO_KEY=true where a lock stands in front of the service"
    )
    return [Problem(f"BIND_ADDR={address} lets other machines in, and they would need no key", hint)]


def _only_here(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def unknown(environ: Mapping[str, str]) -> list[Problem]:
    """Names that look like the kit's and are not: what the engine answers for is checked by the launcher."""
    known = environ.get(KNOWN_NAMES, "").split()
    found = []
    for name in sorted(environ):
        ours = name.startswith(("BERTH_", "LLM_")) and not names.is_setting_like(name)
        if not ours or name in known or name == names.DEVICE:
            continue
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "docs/settings.md lists every name; remove this line"
        found.append(Problem(f"{name}: no such setting", hint))
    return found


if __name__ == "__main__":
    sys.exit(main())
