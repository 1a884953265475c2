"""Places that vLLM writes to, made usable for any uid, without a passwd entry, with HOME=/ or a read-only root."""

import os
import pwd
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from engine.decisions import Decision
from engine.messages import Exit, Problem
from engine.model import hub_cache


def is_writable(folder: Path) -> bool:
    """Whether a file can be made in `folder`, which is created where it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except (OSError, ValueError):
        return False


def is_executable(folder: Path) -> bool:
    """Whether compiled code may be loaded from `folder`: a file system mounted noexec forbids it."""
    try:
        return not os.statvfs(folder).f_flag & os.ST_NOEXEC
    except OSError:
        return True


def settle(environ: Mapping[str, str]) -> tuple[list[Decision], list[Problem]]:
    """Return what to set so that home, temporary files and caches are writable, or why that cannot be.

    Creates the folders that it names.
    """
    scratch = _scratch(environ)
    if scratch is None:
        problem = Problem(
            "there is no writable folder for temporary files",
            "mount a tmpfs at /tmp, or set TMPDIR to a writable folder",
            Exit.MISSING_PREREQUISITE,
        )
        return [], [problem]
    decisions = [*_home(environ, scratch), *_user(environ)]
    home = next((Path(value) for decision in decisions if (value := decision.environ.get("HOME"))), None)
    if environ.get("TMPDIR") != str(scratch) and not is_writable(Path(tempfile.gettempdir())):
        decisions.append(Decision(f"TMPDIR={scratch}", "the usual place is not writable", {"TMPDIR": str(scratch)}))
    caches, problems = _caches(environ, scratch, home or Path(environ.get("HOME") or "/"))
    return [*decisions, *caches], problems


def _scratch(environ: Mapping[str, str]) -> Path | None:
    for place in (environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 (whether they can be written to is what is asked)
        if place and is_writable(Path(place)):
            return Path(place)
    return None


def _own(scratch: Path, name: str) -> Path:
    """A folder of this user's alone: under Apptainer /tmp is the host's, where another user may have made it first."""
    folder = scratch / f"{name}-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=scratch))


def _home(environ: Mapping[str, str], scratch: Path) -> list[Decision]:
    home = environ.get("HOME")
    if home and home != "/" and is_writable(Path(home)):
        return []
    value = str(_own(scratch, "berth-home"))
    return [Decision(f"HOME={value}", f"{home or 'it'} is not writable" if home else "it is not set", {"HOME": value})]


def _user(environ: Mapping[str, str]) -> list[Decision]:
    """getpass.getuser, which PyTorch asks, fails for a uid without a passwd entry unless one of these is set."""
    if any(environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        return []
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        name = f"uid{os.getuid()}"
        return [Decision(f"USER={name}", "this uid has no passwd entry", {"USER": name, "LOGNAME": name})]
    return []


def _caches(environ: Mapping[str, str], scratch: Path, home: Path) -> tuple[list[Decision], list[Problem]]:
    decisions: list[Decision] = []
    base = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    compiled = Path(environ.get("VLLM_CACHE_ROOT") or base / "vllm")
    if not is_writable(compiled):
        fallback = _own(scratch, "berth-cache") / "vllm"
        why = f"{compiled} is not writable; compiled code is lost when this ends"
        decisions.append(Decision(f"VLLM_CACHE_ROOT={fallback}", why, {"VLLM_CACHE_ROOT": str(fallback)}))
        compiled = fallback
        compiled.mkdir(parents=True, exist_ok=True)
    problems = []
    if not is_executable(compiled):
        problems.append(
            Problem(
                f"compiled code cannot be loaded from {compiled}: it is mounted noexec",
                "mount it with exec (Docker: `--tmpfs PATH:exec`), or set VLLM_CACHE_ROOT to another folder",
            )
        )
    decisions += _inside(environ, compiled)
    return [*decisions, *_models({**environ, "HOME": str(home)}, scratch)], problems


def _inside(environ: Mapping[str, str], compiled: Path) -> list[Decision]:
    """Inductor and Triton keep code in /tmp or the home by default, where a new container loses it."""
    places = {"TORCHINDUCTOR_CACHE_DIR": compiled / "inductor", "TRITON_CACHE_DIR": compiled / "triton"}
    return [
        Decision(f"{name}={place}", "compiled code is kept with vLLM's own", {name: str(place)})
        for name, place in places.items()
        if name not in environ
    ]


def _models(environ: Mapping[str, str], scratch: Path) -> list[Decision]:
    """A cache that can only be read still serves what is in it; new downloads need a writable one."""
    cache = hub_cache(environ)
    if os.path.isdir(cache) or is_writable(cache):
        return []
    fallback = _own(scratch, "berth-cache") / "huggingface"
    why = f"{cache} is not writable; downloads are lost when this ends"
    return [Decision(f"HF_HOME={fallback}", why, {"HF_HOME": str(fallback)})]
