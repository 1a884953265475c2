"""The login node, this machine or one reached by SSH: runs programs there, and reads and writes its files."""

import contextlib
import io
import os
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from berth.errors import BerthError, Exit, failed
from berth.slurm import ssh
from engine.names import SECRETS

_UNREACHABLE = 255  # ssh's own failures
_NOT_FOUND = 127  # a shell's, for a program that is not there
_ABSENT = 44  # what the scripts below exit with for a file that is not there
_BEGIN = b"\x01berth\x01"  # a login shell may print a greeting before the program does

_READ = '[ -e "$1" ] || exit 44; exec cat -- "$1"'
_READ_EACH = r"""cd "$1" 2>/dev/null || exit 0
for f in $2; do [ -f "$f" ] && printf "%s\0" "$f" && cat -- "$f" && printf "\0"; done"""
_WRITE = (
    'umask 077; mkdir -p -- "$(dirname -- "$1")" && t="$1.new.$$" && cat >"$t" && chmod "$2" "$t" && mv -f -- "$t" "$1"'
)


@dataclass(frozen=True)
class Completed:
    """What a program said, and its exit code."""

    stdout: str
    stderr: str
    code: int

    @property
    def last(self) -> str:
        """The last line that it complained with."""
        return (self.stderr.strip().splitlines() or self.stdout.strip().splitlines() or ["no message"])[-1]


class Cluster:
    """A login node; `destination` is None for this machine, else what ssh is told: `user@host`, an alias."""

    def __init__(self, destination: str | None = None) -> None:
        self.destination = destination or None
        self._options: list[str] | None = None

    def ssh_options(self) -> list[str]:
        """Options of every ssh to the login node: one connection for all verbs, no prompt, dead ones noticed."""
        if self._options is None:
            self._options = ssh.options(self.destination or "")
        return self._options

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command as this machine runs it."""
        if self.destination is None:
            return list(argv)
        return ["ssh", *self.ssh_options(), self.destination, "--", shlex.join(argv)]

    def run(
        self, argv: Sequence[str], input: bytes | None = None, check: bool = True, timeout_s: float = 60
    ) -> Completed:
        """Run a program on the login node.

        Raises BerthError: exit code 3 where the login node cannot be reached; with `check`, exit code 3 too where the
        program is not there, and exit code 1 with its last words where it fails.
        """
        code, out, err = self._raw(argv, input, timeout_s)
        if check and code == _NOT_FOUND:  # the shell at the other end, or env
            raise _no_program(_program(argv), self.destination or "this machine")
        done = Completed(out.decode(errors="replace"), err.decode(errors="replace"), code)
        if check and code:
            raise failed(f"{argv[0]} failed: {done.last}", f"by hand: {shlex.join(self.command(argv))}")
        return done

    def _raw(self, argv: Sequence[str], input: bytes | None, timeout_s: float) -> tuple[int, bytes, bytes]:
        command = self.command(argv)
        if self.destination:
            command[-1] = f"printf '\\001berth\\001'; {command[-1]}"
        try:
            done = subprocess.run(command, input=input or b"", capture_output=True, timeout=timeout_s, env=_environ())
        except FileNotFoundError as error:
            if self.destination is None:
                return _NOT_FOUND, b"", str(error).encode()
            raise _no_program(command[0], "this machine") from None
        except subprocess.TimeoutExpired:
            where = self.destination or "this machine"
            raise failed(
                f"{argv[0]} on {where} said nothing for {timeout_s:.0f} s", "is the cluster busy? try again later"
            ) from None
        if self.destination and done.returncode == _UNREACHABLE:
            raise self._unreachable(done.stderr)
        _, begun, output = done.stdout.partition(_BEGIN)
        return done.returncode, output if begun else done.stdout, done.stderr

    def _unreachable(self, said: bytes) -> BerthError:
        words = said.decode(errors="replace").strip().splitlines() or ["no message"]
        return failed(
            f"the login node {self.destination} cannot be reached: {words[-1].strip()}",
            f"it must let you in without a question: ssh -o BatchMode=yes {self.destination} true",
            Exit.MISSING_PREREQUISITE,
        )

    def has(self, program: str) -> bool:
        """Whether the login node has a program on its PATH."""
        return self.run(["sh", "-c", 'command -v -- "$1" || exit 1', "sh", program], check=False).code == 0

    def read(self, path: str, timeout_s: float = 60) -> bytes | None:
        """A file's bytes, or None where there is none. Raises BerthError for one that cannot be read."""
        if self.destination is None:
            try:
                return Path(path).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                raise _unreadable(path, error.strerror or str(error)) from error
        code, out, err = self._raw(["sh", "-c", _READ, "sh", path], None, timeout_s)
        if code not in (0, _ABSENT):
            raise _unreadable(path, err.decode(errors="replace").strip())
        return out if code == 0 else None

    def read_each(self, directory: str, pattern: str) -> dict[str, bytes]:
        """The files below a directory that match a shell pattern, by their paths in it, in one go."""
        if self.destination is None:
            found: dict[str, bytes] = {}
            for file in sorted(Path(directory).glob(pattern)):
                with contextlib.suppress(OSError):  # gone since, or not for this user
                    found[str(file.relative_to(directory))] = file.read_bytes()
            return found
        _, out, _ = self._raw(["sh", "-c", _READ_EACH, "sh", directory, pattern], None, 60)
        parts = out.split(b"\0")[:-1]
        return {name.decode(): data for name, data in zip(parts[::2], parts[1::2], strict=False)}

    def write(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Replace a file in one step; parents are made for this user alone. Raises BerthError."""
        if self.destination is not None:
            self.run(["sh", "-c", _WRITE, "sh", path, f"{mode:o}"], input=data)
            return
        target = Path(path)
        try:
            _make_private(target.parent)
            descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.chmod(temporary, mode)
            os.replace(temporary, target)
        except OSError as error:
            raise failed(
                f"{path} cannot be written: {error.strerror}",
                "set SITE_SCRATCH in the site file to a directory of yours",
                Exit.MISSING_PREREQUISITE,
            ) from error

    def write_all(self, directory: str, files: Mapping[str, tuple[bytes, int]], timeout_s: float = 60) -> None:
        """Write files of a directory, by their paths in it, each with its mode. Raises BerthError."""
        if self.destination is None:
            for name, (data, mode) in files.items():
                self.write(f"{directory}/{name}", data, mode)
            return
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, (data, mode) in files.items():
                about = tarfile.TarInfo(name)
                about.size, about.mode = len(data), mode
                tar.addfile(about, io.BytesIO(data))
        script = 'umask 077; mkdir -p -- "$1" && exec tar -x -p --no-same-owner -f - -C "$1"'
        self.run(["sh", "-c", script, "sh", directory], input=archive.getvalue(), timeout_s=timeout_s)

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, sorted; none for one that is not there."""
        if self.destination is None:
            try:
                return sorted(os.listdir(path))
            except OSError:
                return []
        return sorted(self.run(["ls", "-A", "--", path], check=False).stdout.splitlines())

    def follow(self, path: str, lines: int | None = 10) -> Iterator[str]:
        """The last `lines` lines of a file (None: all), then lines as they come, until the caller stops asking."""
        from berth.children import die_with_parent

        start = "+1" if lines is None else str(lines)
        command, parent = self.command(["tail", "-n", start, "-F", "--", path]), os.getpid()
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            preexec_fn=lambda: die_with_parent(parent),
        ) as process:
            try:
                for line in process.stdout or ():
                    yield line.rstrip("\n")
            finally:
                process.terminate()

    def remove(self, path: str) -> None:
        """Delete a file or a directory with all that is in it."""
        self.run(["rm", "-rf", "--", path])


def _environ() -> dict[str, str]:
    """This process's environment without secrets: sbatch would hand them to the job, and Slurm would keep them."""
    return {name: value for name, value in os.environ.items() if name not in SECRETS}


def _make_private(directory: Path) -> None:
    """Make a directory and its missing parents, each for this user alone."""
    for place in reversed([directory, *directory.parents]):
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)


def _program(argv: Sequence[str]) -> str:
    """The program of a command that may begin with `env NAME=value`."""
    return next(word for word in argv if word != "env" and "=" not in word)


def _no_program(name: str, where: str) -> BerthError:
    hint = (
        "install the OpenSSH client"
        if name == "ssh"
        else "run this on a login node, or name one with SITE_LOGIN in the site file"
    )
    return failed(f"no {name} on {where}", hint, Exit.MISSING_PREREQUISITE)


def _unreadable(path: str, why: str) -> BerthError:
    return failed(f"{path} cannot be read: {why}", "is it yours? see its owner and mode", Exit.MISSING_PREREQUISITE)
