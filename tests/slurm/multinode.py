"""What tests of jobs on several nodes share: jobs of the job script by hand, their processes, their answers."""

import json
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.slurm import Checkout, Lab, User, endpoint, wait_for_endpoint
from tests.support.waiting import wait_until

START_S = 400.0  # three real engines at once on a small machine; a bound for hangs
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Process:
    """A process on a node: its number, and when it began, since numbers are used again."""

    pid: int
    began: str
    words: str


@dataclass
class ServeJob:
    """A job of apptainer/serve.sbatch, submitted by hand as its header says."""

    lab: Lab
    alice: User
    directory: str  # the deployment's, in the cluster
    number: str

    @classmethod
    def submit(
        cls,
        alice: User,
        checkout: Checkout,
        name: str,
        *options: str,
        place: str,
        site: str,
        sif: str,
        files: Sequence[str],
    ) -> "ServeJob":
        """Submit from the checkout; `place`, where the deployment is to be, and all files are paths in the cluster."""
        script = ["apptainer/serve.sbatch", "--deployment", f"{place}/{name}", "--site", site, "--sif", sif, *files]
        told = [f"--job-name=test-{name}", "--time=15", f"--output={place}/{name}.log", *options]
        return cls(checkout.lab, alice, f"{place}/{name}", alice.sbatch(*told, *script, cwd=checkout.path))

    @property
    def run(self) -> str:
        """The run's directory in the cluster."""
        return f"{self.directory}/runs/{self.number}"

    @property
    def endpoint(self) -> dict[str, Any]:
        """endpoint.json as it is now."""
        return endpoint(self.lab, self.run)

    def wait_for(self, *states: str, timeout: float = START_S) -> dict[str, Any]:
        """Wait for a state of endpoint.json."""
        return wait_for_endpoint(self.lab, self.run, *states, timeout=timeout)

    def log(self, rank: int) -> str:
        """The engine's log of one node."""
        return self.lab.outside(f"{self.run}/engine-{rank}.log").read_text(errors="replace")

    def ask(self, question: str) -> str:
        """The answer to a question, through the door, with the deployment's key."""
        said = self.endpoint
        key = self.lab.outside(said["key_file"]).read_text().strip()
        body = {"model": "demo", "messages": [{"role": "user", "content": question}], "temperature": 0}
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{said['base_url']}/v1/chat/completions", json.dumps(body).encode(), headers=headers
        )
        with _DIRECT.open(request, timeout=120) as reply:
            return str(json.load(reply)["choices"][0]["message"]["content"])

    def processes(self, node: str) -> list[Process]:
        """What of this job runs on a node, by Slurm's own account."""
        listed = self.lab.user("root").say("scontrol", "listpids", self.number, node=node, check=False)
        pids = [line.split()[0] for line in listed.splitlines()[1:]]
        return list(self._look(node, [pid for pid in pids if pid.isdigit()]))

    def _look(self, node: str, pids: Iterable[str]) -> Iterable[Process]:
        words = ["ps", "-ww", "-o", "pid=,lstart=,args=", "-p", ",".join(pids) or "0"]
        for line in self.lab.user("root").say(*words, node=node, check=False).splitlines():
            parts = line.split(maxsplit=6)
            yield Process(int(parts[0]), " ".join(parts[1:6]), parts[6] if len(parts) > 6 else "")

    def wait_until_gone(self, left: dict[str, list[Process]]) -> None:
        """Wait until none of these processes runs, and nothing of the job lies in /tmp of their nodes."""

        def gone() -> bool:
            for node, before in left.items():
                now = {(process.pid, process.began) for process in self._look(node, [str(p.pid) for p in before])}
                if now & {(process.pid, process.began) for process in before}:
                    return False
            return True

        wait_until(gone, 60, f"the end of all processes of job {self.number}", 0.5)
        for node in left:
            search = f"ls -d /tmp/berth-*-{self.number}.* /dev/shm/berth-*-{self.number}.* 2>/dev/null || true"
            assert self.lab.user("root").say("sh", "-c", search, node=node) == ""
