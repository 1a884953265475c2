"""The lab's Slurm cluster for tests: its users, its files, its jobs. tests/lab/slurm-cluster makes it."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "tests" / "lab" / "slurm-cluster"
NODES = ("n1", "n2", "n3")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL"}
START_S = 120.0  # bounds for hangs, on a machine that other tests share
_numbers = itertools.count()


def missing() -> str | None:
    """Why there can be no cluster here, or None."""
    if os.geteuid() != 0:
        return "a Slurm cluster in containers needs root"
    if not shutil.which("docker") or subprocess.run(["docker", "version"], capture_output=True).returncode:
        return "no Docker Engine answers here (scripts/test --all starts one on Debian)"
    if not Path("/dev/fuse").exists():
        return "this machine has no /dev/fuse, by which Apptainer mounts images"
    if not shutil.which("apt-get"):
        return "the Slurm cluster is made of Debian's packages, and this machine is not Debian"
    return None


@dataclass(frozen=True)
class Lab:
    """The cluster that runs, as seen from the machine that it runs on."""

    home: Path  # /home of login and the nodes
    shared: Path  # /shared of login and the nodes
    ssh_config: Path  # ssh -F this: alice on login, n1, n2, n3 and vm, from this machine

    @classmethod
    def up(cls) -> "Lab":
        """Start what does not run. Raises AssertionError with what the lab said when it cannot."""
        done = subprocess.run([LAB, "up"], capture_output=True, text=True)
        assert done.returncode == 0, f"the cluster did not come up: {done.stderr}"
        lines = subprocess.run([LAB, "env"], capture_output=True, text=True, check=True).stdout.splitlines()
        values = dict(line.removeprefix("export BERTH_CLUSTER_").split("=", 1) for line in lines)
        return cls(Path(values["HOME"]), Path(values["SHARED"]), Path(values["SSH"]))

    def outside(self, path: str) -> Path:
        """The file on this machine that is `path` (below /home or /shared) in the cluster; root may read it here."""
        for inside, here in (("/home", self.home), ("/shared", self.shared)):
            if path == inside or path.startswith(inside + "/"):
                return here / path[len(inside) + 1 :]
        raise AssertionError(f"{path} is below neither /home nor /shared")

    def user(self, name: str) -> "User":
        """alice, bob or root."""
        return User(self, name)

    def node_stops(self, node: str) -> None:
        """The node fails at once, as by a power cut; Slurm notices some 17 s later. Only n3 is for that."""
        subprocess.run(["docker", "kill", f"berth-cluster-{node}"], check=True, capture_output=True)

    def node_returns(self, node: str) -> None:
        """Start a node that stopped, and wait until it takes jobs."""
        subprocess.run(["docker", "start", f"berth-cluster-{node}"], check=True, capture_output=True)
        self.up()


@dataclass(frozen=True)
class User:
    """Somebody on the cluster: `alice("sinfo", "--json")` runs a command on the login node."""

    lab: Lab
    name: str

    def __call__(
        self,
        *argv: str,
        node: str = "login",
        check: bool = True,
        stdin: str | None = None,
        timeout: float = 120,
        environ: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, in a login shell's environment with `environ` on top.

        Raises AssertionError with its messages when it fails and `check` is set; after `timeout` seconds it is ended.
        """
        done = subprocess.run(
            self._command(["timeout", "--kill-after=5", str(timeout), *argv], node, environ, cwd),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout + 30,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}@{node}: {argv}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def _command(
        self, argv: list[str], node: str, environ: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> list[str]:
        chdir = ["--chdir", cwd] if cwd else []
        words = ["env", *chdir, *[f"{name}={value}" for name, value in (environ or {}).items()], *argv]
        return [str(LAB), "exec", "--user", self.name, "--node", node, "--", *words]

    def say(self, *argv: str, **how: Any) -> str:
        """What a command printed, without the line's end."""
        return self(*argv, **how).stdout.strip()

    @contextmanager
    def begin(
        self, *argv: str, node: str = "login", environ: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> Iterator["Started"]:
        """Start a command that stays; it is killed in the end."""
        pidfile = f"/tmp/lab-{os.getpid()}-{next(_numbers)}"
        script = 'umask 077; echo $$ >"$0"; exec "$@"'
        command = self._command(["bash", "-c", script, pidfile, *argv], node, environ, cwd)
        with tempfile.NamedTemporaryFile(prefix="berth-lab-") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            started = Started(self, node, pidfile, process, Path(output.name))
            try:
                yield started
            finally:
                started.signal(signal.SIGKILL)
                process.wait(30)
                self("rm", "-f", pidfile, node=node, check=False)

    def sbatch(self, *argv: str, **how: Any) -> str:
        """Submit, and return the job's number."""
        return self.say("sbatch", "--parsable", *argv, **how).split(";")[0].splitlines()[-1]

    def cancel(self, *jobs: str) -> None:
        """Cancel jobs; those that ended already are no error."""
        self("scancel", "--quiet", *jobs, check=False)

    def state(self, job: str) -> str:
        """The job's state in one word (PENDING, RUNNING, COMPLETED, …); "" for one that nobody knows."""
        queued = self.say("squeue", "--noheader", "--jobs", job, "--format=%T", check=False)
        ended = queued or self.say("sacct", "--noheader", "-X", "--parsable2", "--jobs", job, "--format=state")
        return ended.split("\n")[0].split(" ")[0]

    def wait_for_state(self, job: str, *states: str, timeout: float = START_S) -> str:
        """Wait until the job is in one of the states; a job that ended otherwise fails the test at once."""

        def reached() -> str | None:
            state = self.state(job)
            assert state in states or state not in ENDED, f"job {job} is {state}, not {' or '.join(states)}"
            return state if state in states else None

        found = wait_until(reached, timeout, f"job {job} being {' or '.join(states)}", 0.3)
        assert found
        return found

    def wait_until_ended(self, job: str, timeout: float = START_S) -> str:
        """Wait for the job's end, however it ends, and return its state."""
        return self.wait_for_state(job, *ENDED, timeout=timeout)


@dataclass(frozen=True)
class Started:
    """A command that goes on."""

    user: User
    node: str
    pidfile: str
    process: "subprocess.Popen[bytes]"
    _output: Path = field(repr=False)

    @property
    def output(self) -> str:
        """What it has printed so far, both streams."""
        return self._output.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the command itself (SIGINT is Ctrl-C); one that ended is no error."""
        script = 'kill "-$1" "$(cat "$0")"'
        if self.process.poll() is None:
            self.user("bash", "-c", script, self.pidfile, str(int(number)), node=self.node, check=False)

    def wait(self, timeout: float = START_S) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(timeout)

    def wait_for(self, text: str, timeout: float = START_S) -> str:
        """Wait until it has printed `text`; its end without it fails the test with what it printed."""

        def printed() -> bool:
            over = self.process.poll() is not None
            found = text in self.output
            assert found or not over, f"ended with {self.process.poll()} without {text!r}:\n{self.output}"
            return found

        wait_until(printed, timeout, f"{text!r} in the output")
        return self.output


@dataclass(frozen=True)
class Checkout:
    """This checkout on the cluster's shared file system, with its command line set up."""

    lab: Lab
    path: str

    def berth(self, user: User, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a verb on the login node, as `checkout.berth(alice, "ls", "--json")`."""
        return user(f"{self.path}/scripts/berth", *words, **{"cwd": self.path, **how})


def endpoint(lab: Lab, run: str) -> dict[str, Any]:
    """endpoint.json of a run's directory (a path in the cluster); {} while there is none."""
    try:
        found: dict[str, Any] = json.loads(lab.outside(f"{run}/endpoint.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found


def wait_for_endpoint(lab: Lab, run: str, *states: str, timeout: float = START_S) -> dict[str, Any]:
    """Wait until endpoint.json says one of the states (default: ready); "failed" fails the test at once."""
    wanted = states or ("ready",)

    def reached() -> dict[str, Any] | None:
        found = endpoint(lab, run)
        state = found.get("state")
        assert state != "failed" or "failed" in wanted, f"{run}: {found.get('reason')}\n{logs(lab, run)}"
        return found if state in wanted else None

    said = wait_until(reached, timeout, f"{run} being {' or '.join(wanted)}", 0.2)
    assert said
    return said


def logs(lab: Lab, run: str, lines: int = 20) -> str:
    """The last lines of every log of a run, for messages of tests that fail."""
    parts = []
    # batch.log may be a link to a path that only the cluster has.
    for log in filter(Path.exists, sorted(lab.outside(run).glob("*.log"))):
        parts += [f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-lines:]]
    return "\n".join(parts)
