"""Jobs of apptainer/serve.sbatch on the lab's cluster, submitted by hand: plain sbatch, a site file, env files."""

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support import slurm
from tests.support.slurm import Checkout, User

_numbers = itertools.count()


@dataclass(frozen=True)
class Job:
    """One job: its number, and the directory of its run as the cluster sees it."""

    user: User
    id: str
    run: str

    @property
    def here(self) -> Path:
        """The run's directory on this machine."""
        return self.user.lab.outside(self.run)

    @property
    def key(self) -> str:
        """The deployment's key."""
        return self.here.parents[1].joinpath("api_key").read_text().strip()

    def endpoint(self) -> dict[str, Any]:
        """What the job says of itself now."""
        return slurm.endpoint(self.user.lab, self.run)

    def wait(self, *states: str) -> dict[str, Any]:
        """Wait for a state of endpoint.json; default: ready."""
        return slurm.wait_for_endpoint(self.user.lab, self.run, *states)

    def client(self) -> httpx.Client:
        """A client with the key, for a job that is ready."""
        address = self.wait()["base_url"]  # by then there is a key
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=address, headers=headers, timeout=30, trust_env=False)

    def signal(self, name: str) -> None:
        """A signal to the batch shell alone."""
        self.user("scancel", f"--signal={name}", "--batch", self.id)

    def exit_code(self) -> str:
        """Slurm's word on the end: `0:0`, `64:0`."""
        self.user.wait_until_ended(self.id)
        return self.user.say("sacct", "-X", "--noheader", "--parsable2", "--jobs", self.id, "--format=exitcode")


@dataclass(frozen=True)
class Jobs:
    """Submits jobs from a checkout, with a store of its own."""

    user: User
    checkout: Checkout
    sif: str
    store: str

    @classmethod
    def make(cls, user: User, checkout: Checkout, sif: str) -> "Jobs":
        """Choose a store below /shared, and write the site file that names it."""
        scratch = f"/shared/test-jobs-{os.getpid()}-{next(_numbers)}"
        user("mkdir", "-p", f"{scratch}/berth")
        jobs = cls(user, checkout, sif, f"{scratch}/berth")
        jobs.write("site.env", f"SITE_SCRATCH={scratch}\n")
        return jobs

    def write(self, name: str, text: str) -> str:
        """A file of the user's in the store; returns its path in the cluster."""
        path = f"{self.store}/{name}"
        self.user("bash", "-c", 'cat >"$0"', path, stdin=text)
        return path

    def env(self, text: str) -> str:
        """An env file of the user's."""
        return self.write(f"{next(_numbers)}.env", text)

    def submit(
        self,
        *files: str,
        options: tuple[str, ...] = (),
        script_options: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Job:
        """Submit the demo model with further env files, as a deployment of its own."""
        deployment = f"{self.store}/deployments/job{next(_numbers)}"
        words = ["--job-name=test-job", "--time=10", f"--output={self.store}/%j.log", *options]
        script = ["apptainer/serve.sbatch", "--site", f"{self.store}/site.env", "--sif", self.sif]
        script += ["--deployment", deployment, *script_options, "env/cpu.env", "env/models/demo.env", *files]
        job = self.user.sbatch(*words, *script, cwd=self.checkout.path, environ=environ)
        return Job(self.user, job, f"{deployment}/runs/{job}")

    @contextmanager
    def serving(self, *files: str, **how: Any) -> Iterator[Job]:
        """A job that is ready, and that is cancelled in the end."""
        job = self.submit(*files, **how)
        try:
            job.wait()
            yield job
        finally:
            self.user.cancel(job.id)

    def dump(self, name: str, rank: int = 0) -> dict[str, Any]:
        """What the stub wrote of its arguments and environment, with STUB_DUMP=/cache/vllm/<name>."""
        path = self.user.lab.outside(f"{self.store}/cache/cpu/{name}/{rank}.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found
