"""What tests of fleets share: deployments of alice's with the stub engine, and a client that never stops asking."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.slurm import Checkout, Lab, Started, User, endpoint, wait_for_endpoint

SCRATCH = "/shared/tests-fleet"
ENV = ("--env", "env/cpu.env", "--env", "env/models/demo.env")
# A request every fifth of a second, two of three streamed; a line for each answer.
CLIENT = """
import json, signal, sys, threading, time, urllib.request

url, key = sys.argv[1], open(sys.argv[2]).read().strip()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
going = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: going.set())


def ask(number):
    body = {"messages": [{"role": "user", "content": "hello"}], "stream": number % 3 > 0}
    headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), headers)
    begun = time.time()
    try:
        with opener.open(request, timeout=30) as answer:
            text = answer.read().decode()
        good = text.rstrip().endswith("data: [DONE]") if body["stream"] else bool(json.loads(text)["choices"])
        said = "" if good else text[-200:]
    except Exception as error:
        said = repr(error) + (error.read().decode()[-200:] if hasattr(error, "read") else "")
    line = {"number": number, "at": begun, "seconds": round(time.time() - begun, 2), "wrong": said}
    sys.stdout.write(json.dumps(line) + "\\n")
    sys.stdout.flush()


threads, number, begun = [], 0, time.monotonic()
while not going.wait(max(0, begun + number * 0.2 - time.monotonic())):
    threads.append(threading.Thread(target=ask, args=(number,)))
    threads[-1].start()
    number += 1
for thread in threads:
    thread.join()
"""


@dataclass
class Fleet:
    """The store that these tests use, and what they started in it."""

    lab: Lab
    alice: User
    checkout: Checkout
    names: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, lab: Lab, alice: User, checkout: Checkout, sif: str) -> "Fleet":
        """A site of its own, with the stub as the image for CPUs."""
        script = """umask 077; rm -rf "$0"; mkdir -p "$0/berth/sif" && ln -s "$1" "$0/berth/sif/vllm-cpu.sif"
            printf 'SITE_SCRATCH=%s\\nSITE_SBATCH=--exclude=n3\\nSITE_MEM=200M\\n' "$0" >"$0/site.env"
            printf 'SITE_SCRATCH=%s\\nSITE_SBATCH=--nodelist=n3\\nSITE_MEM=200M\\n' "$0" >"$0/n3.env" """
        alice("bash", "-c", script, SCRATCH, sif)
        return cls(lab, alice, checkout)

    def berth(self, *words: str, site: str = "site.env", **how: Any) -> Any:
        """Run a verb with --json and return what it printed."""
        told = self.checkout.berth(self.alice, *words, "--json", environ={"BERTH_SITE": f"{SCRATCH}/{site}"}, **how)
        return json.loads(told.stdout.splitlines()[-1])

    def up(self, name: str, *options: str, **how: Any) -> dict[str, Any]:
        """`berth up -d`; returns what it printed."""
        self.names.append(name)
        found: dict[str, Any] = self.berth("up", "--runtime", "slurm", *ENV, "--name", name, *options, "-d", **how)
        return found

    def ls(self) -> list[dict[str, Any]]:
        """The lines of `berth ls`."""
        found: list[dict[str, Any]] = self.berth("ls")["jobs"]
        return found

    def run(self, name: str, run: str) -> str:
        """A run's directory."""
        return f"{SCRATCH}/berth/deployments/{name}/runs/{run}"

    def endpoint(self, name: str, run: str) -> dict[str, Any]:
        """What a run says of itself now."""
        return endpoint(self.lab, self.run(name, run))

    def wait_for(self, name: str, run: str, *states: str, timeout: float = 120) -> dict[str, Any]:
        """Wait until a run says one of the states."""
        return wait_for_endpoint(self.lab, self.run(name, run), *states, timeout=timeout)

    @contextmanager
    def client(self, url: str, key_file: str) -> Iterator["Client"]:
        """A client on the login node that asks until the block ends."""
        with self.alice.begin("python3", "-c", CLIENT, url, key_file) as started:
            yield Client(started)

    def end(self) -> None:
        """Leave no job and no connection."""
        there = [row["name"] for row in self.ls()]
        if mine := [name for name in self.names if name in there]:
            self.berth("stop", *mine)


@dataclass
class Client:
    """The client that never stops asking."""

    started: Started

    def stop(self) -> list[dict[str, Any]]:
        """Let it finish, and return its answers."""
        self.started.signal(signal.SIGTERM)
        assert self.started.wait(60) == 0, self.started.output
        return [json.loads(line) for line in self.started.output.splitlines()]
