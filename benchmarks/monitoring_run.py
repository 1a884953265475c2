"""The work of benchmarks/monitoring: starts the stack and Prometheus, loads the one, and asks the other."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from containers import note

from tests.support.prometheus import Prometheus, folder, program, running
from tests.support.promql import ROOT, queries
from tests.support.waiting import free_port, wait_until

ENGINE = ROOT / ".berth" / "engine-cpu" / "bin"
START_S = 900.0
# With `usage`, which is where the service's count of tokens comes from.
QUESTION = {
    "messages": [{"role": "user", "content": "What is Deep Learning?"}],
    "max_tokens": 48,
    "stream": True,
    "stream_options": {"include_usage": True},
}
JOBS = ("berth-llm", "berth-engine", "berth-machine")
# A machine that has more to do than it can may miss a scrape; whoever runs must not be called dead for that.
FALSE_ALARMS = {"BerthServiceDown", "BerthEngineGone", "BerthNoEngine"}


class Stack:
    """The engine, the service and the machine's exporter as plain processes."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._ports = {name: free_port() for name in ("engine", "llm", "machine")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in self._ports.items()}

    def start(self, name: str) -> None:
        """Start one of the three; the engine answers when its model is loaded."""
        settings = {
            "LLM_DEVICE": "cpu",
            "LLM_VLLM_MODEL_NAME": "demo",
            "LLM_VLLM_PORT": str(self._ports["engine"]),
            "LLM_USVC_PORT": str(self._ports["llm"]),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "HF_HUB_OFFLINE": "1",
            "PATH": f"{ENGINE}:{os.environ['PATH']}",
        }
        words: dict[str, list[str | Path]] = {
            "engine": [ENGINE / "python", "-P", "-m", "engine.serve"],
            "llm": [sys.executable, "-P", "-m", "llm_service"],
            "machine": [
                program("prometheus-node-exporter"),
                f"--web.listen-address=127.0.0.1:{self._ports['machine']}",
            ],
        }
        with (self._place / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                words[name],
                env={**os.environ, **settings},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """End one of them at once, with its children."""
        os.killpg(self._processes[name].pid, 9)
        self._processes[name].wait()

    def stop(self) -> None:
        """End them all."""
        for process in self._processes.values():
            if process.poll() is None:
                os.killpg(process.pid, 15)
        for process in self._processes.values():
            process.wait(120)

    def ready(self) -> bool:
        """Whether a chat request would be answered."""
        return self._answers(f"{self.urls['llm']}/ready")

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            return httpx.get(url, trust_env=False, timeout=10).status_code == 200
        except httpx.TransportError:
            return False


class Load:
    """Clients that ask one question after the other, until they are told to stop."""

    def __init__(self, url: str, streams: int) -> None:
        self.answers, self.failures = 0, 0
        self._url, self._end = url, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(streams)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(trust_env=False, timeout=120) as client:
            while not self._end.is_set():
                try:
                    reply = client.post(f"{self._url}/v1/chat/completions", json=QUESTION)
                    good = reply.status_code == 200 and "[DONE]" in reply.text
                except httpx.TransportError:
                    good = False
                self.answers, self.failures = self.answers + good, self.failures + (not good)
                if not good:
                    self._end.wait(1)


def leave(url: str) -> None:
    """Be a client that leaves in the middle of an answer: one panel shows nothing before there was one."""
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=QUESTION, trust_env=False, timeout=120) as reply:
        next(reply.iter_bytes())


def under_load(stack: Stack, prometheus: Prometheus, minutes: float, streams: int) -> dict[str, Any]:
    """What Prometheus saw in that time."""
    note(f"{streams} streams for {minutes:g} minutes")
    began = time.monotonic()
    leave(stack.urls["llm"])
    with Load(stack.urls["llm"], streams) as load:
        fired: set[str] = set()
        while time.monotonic() - began < 60 * minutes:
            time.sleep(1)
            fired |= prometheus.firing()
        # Asked while there is something to see: a rate is nothing a minute later.
        panels = [query for query in queries() if "rules.yaml" not in query.place]
        empty = [query.place for query in panels if not prometheus.query(query.text)]
    seconds = int(time.monotonic() - began)
    answered = {job: _number(prometheus, f'avg_over_time(up{{job="{job}"}}[{seconds}s])') for job in JOBS}
    scraped = {job: _number(prometheus, f'count_over_time(up{{job="{job}"}}[{seconds}s])') for job in JOBS}
    slowest = _number(prometheus, f"max(max_over_time(scrape_duration_seconds[{seconds}s]))")
    return {
        "seconds": seconds,
        "answers": load.answers,
        "failures": load.failures,
        "scrapes": scraped,
        "answered": {job: round(share, 3) for job, share in answered.items()},
        "slowest_scrape_s": round(slowest, 3),
        "series": _number(prometheus, 'count({__name__=~".+"})'),
        "panels": len(panels),
        "panels_without_data": empty,
        "alerts": sorted(fired),
    }


def killed_and_back(stack: Stack, prometheus: Prometheus) -> dict[str, Any]:
    """Kill the engine, wait for the alert, start it again, and wait until the alert is over."""
    note("the engine is killed")
    stack.kill("engine")
    gone = time.monotonic()
    wait_until(lambda: "BerthEngineGone" in prometheus.firing(), 300, "the alert fires", interval=0.5)
    fired = time.monotonic() - gone
    stack.start("engine")
    wait_until(stack.ready, START_S, "the engine is back", interval=0.5)
    back = time.monotonic()
    wait_until(lambda: "BerthEngineGone" not in prometheus.firing(), 120, "the alert is over", interval=0.5)
    return {"fired_after_s": round(fired, 1), "cleared_after_s": round(time.monotonic() - back, 1)}


def _number(prometheus: Prometheus, query: str) -> float:
    return float(prometheus.query(query)[0]["value"][1])


def main() -> int:
    """Print one JSON object; return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks/monitoring", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--streams", type=int, default=4)
    options = parser.parse_args()
    with ExitStack() as ends:
        place = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="berth-monitoring-")))
        stack = Stack(place)
        ends.callback(stack.stop)
        note("starting vLLM, up to some minutes")
        for name in ("engine", "llm", "machine"):
            stack.start(name)
        wait_until(stack.ready, START_S, "the service is ready", interval=0.5)
        prometheus = ends.enter_context(running(folder(place, stack.urls, every="15s")))
        loaded = under_load(stack, prometheus, options.minutes, options.streams)
        killed = killed_and_back(stack, prometheus)
    good = not loaded["panels_without_data"] and not FALSE_ALARMS & set(loaded["alerts"])
    print(json.dumps({"benchmark": "monitoring", "kept": good, **loaded, **killed}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
