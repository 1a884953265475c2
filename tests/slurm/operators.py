"""What tests of the command line share: alice at the login node, with a site file and a store of these tests' own."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.slurm import Checkout, Lab, Started, User

SCRATCH = "/shared/tests-cli"
DEMO = ("--runtime", "slurm", "--env", "env/cpu.env", "--env", "env/models/demo.env")


@dataclass
class Operator:
    """Somebody who types verbs on the login node."""

    lab: Lab
    user: User
    checkout: Checkout
    sif: str

    def prepare(self) -> None:
        """The image in the store, and nothing left of an earlier run."""
        script = 'rm -rf "$0/berth/deployments"; mkdir -p "$0/berth/sif"; ln -sf "$1" "$0/berth/sif/vllm-cpu.sif"'
        self.user("bash", "-c", script, SCRATCH, self.sif)

    def site(self, name: str = "site", **lines: str) -> str:
        """Write a site file; returns its path."""
        path = f"{SCRATCH}/{name}.env"
        said = {"SITE_SCRATCH": SCRATCH, "SITE_TIME": "10:00", **lines}
        text = "".join(f"{key}={value}\n" for key, value in said.items())
        self.user("bash", "-c", 'cat >"$0"', path, stdin=text)
        return path

    def berth(self, *words: str, site: str | None = None, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end, whatever its exit code."""
        environ: Mapping[str, str] = {**how.pop("environ", {}), "BERTH_SITE": site or f"{SCRATCH}/site.env"}
        return self.checkout.berth(self.user, *words, environ=environ, check=False, **how)

    def said(self, *words: str, **how: Any) -> Any:
        """What a verb prints with --json; it must succeed."""
        done = self.berth(*words, "--json", **how)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def begin(self, *words: str) -> Iterator[Started]:
        """A verb that stays."""
        with self.user.begin(
            f"{self.checkout.path}/scripts/berth",
            *words,
            environ={"BERTH_SITE": f"{SCRATCH}/site.env"},
            cwd=self.checkout.path,
        ) as started:
            yield started

    def settings(self, name: str, **lines: str) -> str:
        """Write an env file beside the site file; returns its path."""
        path = f"{SCRATCH}/{name}.env"
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        self.user("bash", "-c", 'cat >"$0"', path, stdin=text)
        return path

    def row(self, name: str) -> dict[str, Any]:
        """The first line of `berth ls` about a deployment."""
        rows = [row for row in self.said("ls")["jobs"] if row["name"] == name]
        assert rows, f"{name} is not listed"
        found: dict[str, Any] = rows[0]
        return found

    def clear(self) -> None:
        """End what these tests left."""
        self.berth("down", "--runtime", "slurm", "--all")


def complaint(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    """(exit code, sentence, hint) of a verb that failed, which printed no traceback."""
    assert "Traceback" not in done.stdout + done.stderr
    sentence = re.search(r"^berth: error: (.*)$", done.stderr, re.MULTILINE)
    hint = re.search(r"^berth: hint: (.*)$", done.stderr, re.MULTILINE)
    assert sentence, done.stdout + done.stderr
    assert hint, done.stderr
    return done.returncode, sentence[1], hint[1]
