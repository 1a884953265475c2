"""A login node whose Slurm says what a test tells it to; its files are real, in a directory of the test's own."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from berth.errors import failed
from berth.slurm.cluster import Cluster, Completed
from berth.slurm.site import Site
from berth.slurm.store import Deployed, EndpointFile, Store

NO_ACCOUNTS = Completed("", "Slurm accounting storage is disabled", 1)


class FakeCluster(Cluster):
    """Answers by program name; everything else runs for real. `asked` is what was run."""

    def __init__(self, **answers: Completed | str) -> None:
        super().__init__(None)
        self.answers = {
            name: Completed(said, "", 0) if isinstance(said, str) else said for name, said in answers.items()
        }
        self.asked: list[list[str]] = []

    def run(
        self, argv: Sequence[str], input: bytes | None = None, check: bool = True, timeout_s: float = 60
    ) -> Completed:
        """The answer for the first program of the command that has one."""
        for word in argv:
            if word in self.answers:
                self.asked.append(list(argv))
                answer = self.answers[word]
                if check and answer.code:
                    raise failed(f"{word} failed: {answer.last}", "a test says so")
                return answer
        return super().run(argv, input, check, timeout_s)


def store(scratch: Path, **answers: Completed | str) -> Store:
    """A store below `scratch`, on a cluster with these answers."""
    return Store(FakeCluster(**answers), Site(scratch=str(scratch)))


def deployment(where: Store, name: str, *jobs: str, **more: Any) -> Path:
    """Write a deployment that was submitted as these jobs; returns its directory."""
    where.save(Deployed(name, more.pop("device", "cpu"), more.pop("model", "demo"), jobs=list(jobs), **more))
    return Path(where.deployment_dir(name))


def run(where: Store, name: str, number: str, **said: Any) -> Path:
    """Write the endpoint file of one run; returns the run's directory."""
    place = Path(where.deployment_dir(name), "runs", number)
    place.mkdir(parents=True, mode=0o700)
    record = EndpointFile(deployment=name, run=number, job=number.partition("_")[0], **said)
    (place / "endpoint.json").write_text(json.dumps(asdict(record)))
    (place / "batch.log").write_text("a line\n" * 10)
    return place
