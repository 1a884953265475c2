"""Apptainer on this machine, driven through spython.

Of spython these are its subprocess helpers: its client calls a program of the fixed name `singularity`, and reads one
of the two streams while the other fills up. Its converter of Dockerfiles loses quotes, options and stages: not used.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from subprocess import CalledProcessError

from berth.errors import BerthError, Exit, failed

OLDEST = (1, 2)  # the first with build arguments in definition files

_SPACE = "free some, or set APPTAINER_TMPDIR and --output to places that have it"
# What Apptainer and the kernel say; what is said instead; the remedy; whether that is a prerequisite.
_REASONS = (
    (r"no space left on device", "there is no space left for it", _SPACE, False),
    (r"disk quota exceeded", "your quota is used up", _SPACE, False),
    (
        r"user.?namespace|newuidmap|unshare\S*: operation not permitted",
        "this machine gives its users no user namespaces, without which Apptainer makes no image",
        "make it on another machine and copy the file, or ask for user namespaces here",
        True,
    ),
    (
        r"permission denied.*docker\.sock|docker\.sock.*permission denied",
        "the Docker Engine does not let you in",
        "add yourself to the group docker, or hand over a file: --from docker-archive:FILE",
        True,
    ),
    (r"no such image|reference does not exist", "there is no such image", "build it: scripts/berth build", True),
    (r"mksquashfs.*(?:not found|no such file)", "mksquashfs is missing", "install the package squashfs-tools", True),
    (
        r"unauthorized|authentication required|denied: ",
        "the registry does not let you in",
        "log in: apptainer registry login --username NAME docker://HOST",
        False,
    ),
    (
        r"manifest unknown|no such host|connection refused|i/o timeout",
        "the registry does not give it",
        "check name, digest and proxy",
        False,
    ),
)
_LEVEL = re.compile(r"^(FATAL|ERROR):\s*")


def find(named: str = "", module: str = "") -> str:
    """The program: the one that the site file names, else apptainer, else singularity.

    Raises BerthError (exit code 3) where there is none, or one that is older than 1.2.
    """
    for name in [named] if named else ["apptainer", "singularity"]:
        if path := shutil.which(name):
            _check_version(path)
            return path
    hint = (
        f"module load {module}" if module else "load its module, or install it: https://apptainer.org/docs/admin/latest"
    )
    raise failed(f"there is no {named or 'apptainer'} on PATH", hint, Exit.MISSING_PREREQUISITE)


def _check_version(program: str) -> None:
    said = " ".join(output([program, "--version"])[1])
    match = re.search(r"apptainer version (\d+)\.(\d+)", said)
    if match and (int(match[1]), int(match[2])) < OLDEST:
        raise failed(
            f"{program} is version {match[1]}.{match[2]}, and {OLDEST[0]}.{OLDEST[1]} or newer is needed",
            "load a newer module, or make the image elsewhere and copy the file",
            Exit.MISSING_PREREQUISITE,
        )


def output(command: Sequence[str]) -> tuple[int, list[str]]:
    """Exit code and what a command said, standard output first."""
    from spython.utils import run_command  # type: ignore[import-untyped]

    done = run_command(list(command), quiet=True)
    return int(done["return_code"]), list(done["message"])


def follow(command: Sequence[str], environ: Mapping[str, str], heard: Callable[[str], None]) -> None:
    """Run a command and hand over each line of both its streams. Raises BerthError with the reason when it fails."""
    from spython.utils import stream_command

    said: list[str] = []
    os.environ.update(environ)  # spython hands its own environment on, and takes none
    try:
        for line in stream_command(list(command), output_type="both"):
            said.append(line.rstrip())
            heard(said[-1])
    except CalledProcessError:
        raise explained(said, command[1]) from None


def explained(said: Sequence[str], verb: str) -> BerthError:
    """The error for what Apptainer said before it gave up."""
    text = "\n".join(said)
    for pattern, sentence, hint, prerequisite in _REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            code = Exit.MISSING_PREREQUISITE if prerequisite else Exit.FAILED
            return failed(f"apptainer {verb} failed: {sentence}", hint, code)
    return failed(f"apptainer {verb} failed: {_last(said)}", "--dry-run prints the command, to be run by hand")


def _last(said: Sequence[str]) -> str:
    """The last complaint, or the last line where nothing calls itself one."""
    lines = [line.strip() for line in "\n".join(said).splitlines() if line.strip()] or ["no message"]
    return _LEVEL.sub("", ([line for line in lines if _LEVEL.match(line)] or lines)[-1])


def labels(program: str, sif: str) -> dict[str, str]:
    """The labels of an image. Raises BerthError for a file that Apptainer cannot read."""
    code, said = output([program, "inspect", "--json", "--labels", sif])
    text = "".join(said)
    try:
        found = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]["data"]["attributes"]["labels"] or {}
    except (ValueError, KeyError, TypeError):
        found = None
    if code or found is None:
        raise failed(f"{sif} is no image that Apptainer can read", "make it anew with --force")
    return {str(name): str(value) for name, value in found.items()}


def is_signed(program: str, sif: str) -> bool:
    """Whether the image holds a signature, whosever."""
    code, said = output([program, "sif", "list", sif])
    return code == 0 and "Signature" in "".join(said)


def sign(program: str, sif: str, key: str) -> None:
    """Sign an image with a private key in a PEM file. Raises BerthError."""
    code, said = output([program, "sign", "--key", key, sif])
    if code:
        raise _pem("sign", key, "private", said)


def verify(program: str, sif: str, key: str) -> None:
    """Check an image against a public key in a PEM file. Raises BerthError where it is unsigned, signed by another key
    or changed since."""
    code, said = output([program, "verify", "--key", key, sif])
    text = "".join(said)
    if not code:
        return
    if "no signature" in text.lower() or "signature not found" in text.lower():
        raise failed(f"{sif} is not signed", "sign it when it is made: --sign KEY.pem")
    if "failed to load key material" in text.lower():
        raise _pem("verify", key, "public", said)
    raise failed(
        f"{sif} was not signed with the key that belongs to {key}, or was changed since",
        "do not run it; make it anew with --force",
    )


def _pem(verb: str, key: str, kind: str, said: Sequence[str]) -> BerthError:
    make = "openssl genrsa -out key.pem 3072; openssl rsa -in key.pem -pubout -out pub.pem"
    return failed(
        f"apptainer {verb} --key {key} failed: {_last(said)}", f"{key} has to be a {kind} key in PEM form: {make}"
    )
