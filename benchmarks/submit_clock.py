"""Runs on the cluster's login node for benchmarks/submit: from the launch command to the first chat answer, in seconds.

Reads what to do as JSON from standard input, prints one JSON object. The clock is the same for both: it starts
before the launch command and stops when a chat request was answered with status 200. Standard library only.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

POLL_S = 0.2
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Stuck(Exception):
    """A step that did not work: its name and the program's own words."""

    def __init__(self, step: str, said: str) -> None:
        super().__init__(said)
        self.step, self.said = step, said.strip()[-600:]


def run(words: list[str], step: str, more: dict[str, str]) -> str:
    """Standard output of a command. Raises Stuck with its last words."""
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **more}, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Stuck(step, done.stderr or done.stdout)
    return done.stdout


def asked(base: str, key: str) -> bool:
    """Whether a chat request is answered."""
    body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{base}/chat/completions", body, headers)
    try:
        with _opener.open(request, timeout=60) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def berth(plan: dict[str, Any]) -> dict[str, Any]:
    """`berth up -d`, then a request to the address that it prints."""
    command = [plan["program"], "up", "--runtime", "slurm", "-d", "--json", "--time", "30:00", "--site", plan["site"]]
    command += [word for file in plan["env"] for word in ("--env", file)]
    facts = json.loads(run(command, "berth up", {}))
    key = Path(facts["key_file"]).read_text().strip()
    while not asked(f"{facts['url']}/v1", key):
        time.sleep(POLL_S)
    run_file = next(Path(plan["store"], "deployments/demo/runs").glob(f"{facts['jobs'][-1]}*/endpoint.json"))
    return {"job": facts["jobs"][-1], "address": json.loads(run_file.read_text())["base_url"]}


def complaints(log: Path) -> str:
    """The errors that end the tracebacks of a log, else its last lines."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    errors = [line for line in lines if line.partition(":")[0].endswith(("Error", "error"))]
    return "\n".join(dict.fromkeys(errors or lines[-3:]))


def vec_inf(plan: dict[str, Any]) -> dict[str, Any]:
    """`vec-inf launch`, then requests to the address in its record, until one is answered or the job has ended."""
    said = run([plan["program"], "launch", "demo", "--json-mode", *plan["options"]], "vec-inf launch", plan["environ"])
    facts = json.loads(said)
    job, logs = str(facts["slurm_job_id"]), Path(facts["log_dir"])
    record = logs / f"demo.{job}" / f"demo.{job}.json"
    address = ""
    while not (address and asked(address, "none")):
        time.sleep(POLL_S)
        with contextlib.suppress(OSError, ValueError):
            address = json.loads(record.read_text()).get("server_address", "")
        state = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True).stdout.strip()
        if state not in ("PENDING", "CONFIGURING", "RUNNING"):
            raise Stuck(f"job {job} ended before it answered", complaints(record.with_suffix(".err")))
    return {"job": job, "address": address.removesuffix("/v1")}


def main() -> None:
    """Measure one start."""
    plan = json.load(sys.stdin)
    began = time.monotonic()
    try:
        facts = {"berth": berth, "vec-inf": vec_inf}[plan["what"]](plan)
        print(json.dumps({**facts, "seconds": time.monotonic() - began}))
    except Stuck as stuck:
        print(json.dumps({"step": stuck.step, "said": stuck.said}))


if __name__ == "__main__":
    main()
