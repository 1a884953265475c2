"""kubectl, the driver of a cluster: its context and its namespace are the ones that kubectl itself would use."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from berth.errors import BerthError, Exit, Problem, failed

_NO_SERVER = re.compile(r"connection to the server|[Uu]nable to connect|couldn't get current server|no such host")
# Warnings, and what its libraries log.
_BESIDE = re.compile(r"Warning: |[IWEF]\d{4} ")
TIMEOUT_S = 20  # of one answer of the API server; what waits for pods sets its own


def problem() -> Problem | None:
    """Why kubectl cannot be used here, or None. A cluster need not answer for that."""
    if shutil.which("kubectl"):
        return None
    return Problem(
        "no kubectl on PATH",
        "install kubectl 1.27 or newer: https://kubernetes.io/docs/tasks/tools/",
        Exit.MISSING_PREREQUISITE,
    )


def unreachable() -> Problem | None:
    """Why no cluster answers, or None."""
    done = _run(["get", "--raw", "/version"], None)
    return None if done.returncode == 0 else _no_cluster(done.stderr)


def _no_cluster(said: str) -> Problem:
    return Problem(
        f"no Kubernetes cluster answers: {reason(said)}",
        "kubectl config get-contexts shows what kubectl is told of; KUBECONFIG names another file",
        Exit.MISSING_PREREQUISITE,
    )


def words(*args: str) -> list[str]:
    """A command line."""
    return ["kubectl", *args]


def run(args: Sequence[str], given: str | None = None, timeout_s: int = TIMEOUT_S) -> str:
    """What kubectl prints. Raises BerthError in its own words: exit code 3 where no cluster answers, else 1."""
    done = _run(args, given, timeout_s)
    if done.returncode and _NO_SERVER.search(done.stderr):
        raise BerthError(_no_cluster(done.stderr))
    if done.returncode:
        by_hand = f"try it yourself: {shlex.join(words(*args))}"
        raise failed(f"kubectl {args[0]} failed: {reason(done.stderr)}", by_hand)
    return done.stdout


def objects(kinds: str, selector: str) -> list[dict[str, Any]]:
    """The objects of some kinds with a label, in the namespace. Raises BerthError."""
    listed = json.loads(run(["get", kinds, "--selector", selector, "--output", "json"]))
    found: list[dict[str, Any]] = listed["items"]
    return found


def served(group: str) -> bool:
    """Whether the cluster knows an API group, such as one that an operator brings."""
    done = _run(["api-resources", "--api-group", group, "--output", "name"], None)
    return done.returncode == 0 and bool(done.stdout.strip())


def reason(text: str) -> str:
    """What kubectl says first, which is the reason: advice or a comparison of objects may follow."""
    lines = [line for line in text.splitlines() if line.strip() and not _BESIDE.match(line)]
    return lines[0].removeprefix("error: ").removeprefix("Error from server ") if lines else "it says nothing"


def _run(args: Sequence[str], given: str | None, timeout_s: int = TIMEOUT_S) -> "subprocess.CompletedProcess[str]":
    command = words(f"--request-timeout={timeout_s}s", *args) if timeout_s else words(*args)
    return subprocess.run(command, input=given, capture_output=True, text=True, errors="replace")
