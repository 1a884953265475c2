"""What tests of tunnels share: a deployment whose job is a door at once, and a laptop that knows the login node."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.slurm import ROOT, Lab, User, wait_for_endpoint
from tests.support.waiting import wait_until

START_S = 180.0  # a bound for hangs, on a machine that other tests share
KEY = "a-key-that-no-list-of-processes-may-show"
STAND_IN = Path(__file__).with_name("stand_in_door.py")
_numbers = itertools.count()


@dataclass
class Deployment:
    """A deployment in alice's store, served by stand-in jobs."""

    lab: Lab
    user: User
    name: str
    scratch: str

    @property
    def directory(self) -> str:
        return f"{self.scratch}/berth/deployments/{self.name}"

    @classmethod
    def make(cls, lab: Lab, user: User, name: str = "") -> "Deployment":
        """Write what `berth up` writes."""
        name = name or f"tunnel-{os.getpid()}-{next(_numbers)}"
        made = cls(lab, user, name, f"/shared/tests-tunnels-{user.name}")
        record = {"name": name, "device": "cpu", "model": "demo", "jobs": []}
        script = (
            'umask 077; mkdir -p "$0/runs"; printf %s "$1" >"$0/deployment.json"; printf %s "$2" >"$0/api_key"; '
            'cat >"$0/door.py"'
        )
        user("bash", "-c", script, made.directory, json.dumps(record), KEY, stdin=STAND_IN.read_text())
        return made

    def start(self, node: str = "n1", *options: str, before: str = "") -> str:
        """Submit a stand-in job and wait until its door is open; `before` runs first in its batch script."""
        log = f"{self.directory}/batch-%j.log"
        script = f"#!/bin/bash\n{before}\nexec python3 {self.directory}/door.py {self.directory} {' '.join(options)}\n"
        asked = ["--job-name=tunnel-test", "--nodelist", node, "--cpus-per-task=1", "--mem=100M", "--time=10"]
        job = self.user.sbatch(*asked, f"--output={log}", stdin=script)
        record = json.loads(self.user.say("cat", f"{self.directory}/deployment.json"))
        record["jobs"].append(job)
        self.user("bash", "-c", 'cat >"$0"', f"{self.directory}/deployment.json", stdin=json.dumps(record))
        wait_for_endpoint(self.lab, f"{self.directory}/runs/{job}")
        return job

    def jobs(self) -> list[str]:
        """Its jobs, the first first."""
        found: list[str] = json.loads(self.user.say("cat", f"{self.directory}/deployment.json"))["jobs"]
        return found

    def remove(self) -> None:
        """Cancel its jobs and delete it."""
        self.user.cancel(*self.jobs())
        self.user("rm", "-rf", self.directory)

    def stop(self, job: str) -> None:
        """Let a job end as Berth does: its batch process drains."""
        self.user("scancel", "--signal=TERM", "--batch", job)


@dataclass
class Laptop:
    """This machine with a copy of the checkout, outside the cluster: all it has is SSH to the login node."""

    root: Path
    lab: Lab
    environ: dict[str, str]

    @classmethod
    def make(cls, root: Path, lab: Lab, user: str = "alice", **site: str) -> "Laptop":
        """A copy in `root` whose site file says this."""
        from tests.native.conftest import copy

        copy(root)
        programs = root / "bin"
        programs.mkdir()
        shim = programs / "ssh"
        config = root / "ssh_config"
        config.write_text(lab.ssh_config.read_text().replace("alice", user))
        shim.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {config} "$@"\n')
        shim.chmod(0o755)
        lines = {"SITE_LOGIN": f"{user}@login", **site}
        (root / "site.env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        ours = ("LLM_", "VLLM_", "BERTH_", "SITE_", "HF_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environ = {
            **kept,
            "PATH": f"{programs}{os.pathsep}{kept['PATH']}",
            "PYTHONPATH": f"{root}{os.pathsep}{root / 'microservice'}",
            "BERTH_SITE": str(root / "site.env"),
            "XDG_RUNTIME_DIR": tempfile.mkdtemp(prefix="b"),  # a socket's path must be short
        }
        return cls(root, lab, environ)

    def another(self) -> "Laptop":
        """A copy of this one with state of its own."""
        root = self.root.with_name(f"{self.root.name}-{next(_numbers)}")
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns(".berth"))
        for file in (root / "bin" / "ssh", root / "site.env"):
            file.write_text(file.read_text().replace(str(self.root), str(root)))
        environ = {name: value.replace(str(self.root), str(root)) for name, value in self.environ.items()}
        return Laptop(root, self.lab, {**environ, "XDG_RUNTIME_DIR": tempfile.mkdtemp(prefix="b")})

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "berth", *words]

    def berth(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        return subprocess.run(
            self.command(*words),
            cwd=self.root,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_S,
        )

    def close(self, name: str) -> None:
        """End a detached connection, as `berth stop` does besides cancelling the job."""
        script = f"from berth.slurm import connections; connections.close({name!r})"
        subprocess.run([sys.executable, "-P", "-c", script], cwd=self.root, env=self.environ, check=True)

    def remove(self) -> None:
        """End what a test left, and the shared connections."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for socket in Path(self.environ["XDG_RUNTIME_DIR"]).glob("*/*"):
            subprocess.run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "any"], capture_output=True)
        shutil.rmtree(self.environ["XDG_RUNTIME_DIR"], ignore_errors=True)

    @contextmanager
    def connected(self, *words: str, **environ: str) -> Iterator["Connected"]:
        """`berth connect … --json` in the foreground, while it lasts."""
        out, err = self.root / f"out-{next(_numbers)}", self.root / f"err-{next(_numbers)}"
        with open(out, "w") as stdout, open(err, "w") as stderr:
            process = subprocess.Popen(
                self.command("connect", *words, "--json"),
                cwd=self.root,
                env={**self.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        try:
            wait_until(lambda: out.read_text().strip() or process.poll() is not None, START_S, "a connection")
            assert out.read_text().strip().startswith("{"), err.read_text()
            yield Connected(self, process, json.loads(out.read_text()), err)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(START_S)

    def processes(self, word: str = "") -> dict[int, str]:
        """The processes that name this copy and `word` on their command lines, or run in it."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                    place = os.readlink(entry / "cwd")
                except OSError:
                    continue
                master = "[mux]" in words  # the shared connection is to outlive a verb
                if (str(self.root) in words or str(self.root) in place) and word in words and not master:
                    found[int(entry.name)] = words
        return found


@dataclass
class Connected:
    """A `berth connect` that runs."""

    laptop: Laptop
    process: "subprocess.Popen[bytes]"
    facts: dict[str, Any]
    _err: Path

    @property
    def said(self) -> str:
        return self._err.read_text()

    def state(self) -> dict[str, Any]:
        place = Path(self.facts["key_file"]).parent
        read: dict[str, Any] = json.loads((place / "state.json").read_text())
        return read

    def ask(self, timeout: float = 20) -> tuple[int, str]:
        """Status and text of one chat request; (0, what happened) where there is no answer."""
        import httpx

        headers = {"Authorization": f"Bearer {KEY}"}
        body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
        url = f"{self.facts['url']}/v1/chat/completions"
        try:
            answer = httpx.post(url, json=body, headers=headers, timeout=timeout, trust_env=False)
        except httpx.HTTPError as error:
            return 0, repr(error)
        if answer.status_code != 200:
            return answer.status_code, answer.text
        return 200, answer.json()["choices"][0]["message"]["content"]


def every_command_line() -> str:
    """All that `ps` shows on this machine, which runs every machine of the lab."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return "\n".join(found)


def pause() -> None:
    """Between two requests of a client."""
    time.sleep(0.1)


__all__ = ["KEY", "ROOT", "Connected", "Deployment", "Laptop", "every_command_line", "pause"]


@contextmanager
def client(connected: Connected) -> Iterator[list[tuple[int, str]]]:
    """A client that asks all the time, with a pause of 100 ms; the answers so far."""
    answers: list[tuple[int, str]] = []
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            answers.append(connected.ask())
            pause()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


def failures(answers: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Those that were no answer of a model."""
    return [answer for answer in answers if answer[0] != 200]
