"""Stands where `vllm` would in the stub image: `vllm serve MODEL --flags…` answers with the stub engine's text.

It logs as vLLM does, listens on --uds or --host and --port, and with --nnodes waits for its followers at --master-addr
and --master-port. Environment variables say how it behaves, so that an env file can:

STUB_LOAD_SECONDS    how long it loads (default 0.3), telling its progress
STUB_DUMP            a directory: argv and environ are written there as RANK.json before anything else
STUB_SAY             lines for its log, as written by printf '%b'; they come after the weights
STUB_EXIT            exit with this code instead of becoming ready
STUB_EXIT_AFTER      exit with code 1 this many seconds after it was ready
STUB_RANK            STUB_SAY, STUB_EXIT, STUB_EXIT_AFTER and STUB_HANG concern this rank alone (default: all)
STUB_HANG            loading: never becomes ready; requests: accepts them and answers none; stop: ignores SIGTERM
STUB_PIECE_SECONDS   time between two pieces of an answer (default 0.02)
STUB_PIECES          how many pieces an answer has (default: those of its one sentence)
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.stub_engine import StubEngine
from tests.support.stub_knobs import TEXT

HELLO = b"r"


def flags(argv: Sequence[str]) -> dict[str, list[str]]:
    """Every --flag with the words that follow it, whatever vLLM makes of them."""
    found: dict[str, list[str]] = {}
    words: list[str] = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            words = found[name] = [value] if equals else []
        else:
            words.append(word)
    return found


class Stub:
    """One rank of a server."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self.model = argv[1] if len(argv) > 1 and not argv[1].startswith("-") else "stub-model"
        self.flags = flags(argv)
        self.rank = int(self.flag("node-rank", "0"))
        ours = environ.get("STUB_RANK", str(self.rank)) == str(self.rank)
        one_rank = ("STUB_SAY", "STUB_EXIT", "STUB_EXIT_AFTER", "STUB_HANG")
        self.how = {name: value for name, value in environ.items() if ours or name not in one_rank}
        self.peers: list[socket.socket] = []
        self.ending = threading.Event()

    def flag(self, name: str, default: str = "") -> str:
        """The first word after a flag."""
        return (self.flags.get(name) or [default])[0]

    def run(self) -> int:
        """Serve until SIGTERM; return the exit code."""
        self._dump()
        if self.how.get("STUB_HANG") != "stop":
            signal.signal(signal.SIGTERM, lambda *_: self.ending.set())
        else:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say(f"non-default args: {self.flags}")
        self._meet()
        self._load()
        if self.how.get("STUB_EXIT"):
            return int(self.how["STUB_EXIT"])
        if self.how.get("STUB_HANG") == "loading":
            self.ending.wait()
            return 0
        self._count_down()
        return self._follow() if "headless" in self.flags else self._serve()

    def _dump(self) -> None:
        if place := self.how.get("STUB_DUMP"):
            Path(place).mkdir(parents=True, exist_ok=True)
            Path(place, f"{self.rank}.json").write_text(json.dumps({"argv": sys.argv, "environ": dict(os.environ)}))

    def _meet(self) -> None:
        """Rank 0 waits for all others; its sockets to them stay open, so that an end is noticed on both sides."""
        others = int(self.flag("nnodes", "1")) - 1
        if others == 0:
            return
        address = (self.flag("master-addr", "127.0.0.1"), int(self.flag("master-port", "29501")))
        if self.rank == 0:
            met = threading.Semaphore(0)
            threading.Thread(target=self._listen, args=(socket.create_server(address), met), daemon=True).start()
            for _ in range(others):
                met.acquire()
        else:
            self.peers = [connect(address)]
            self.peers[0].sendall(HELLO)

    def _listen(self, listener: socket.socket, met: threading.Semaphore) -> None:
        """As vLLM's own: for as long as it lives, and whoever connects and says nothing is no worker."""
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._greet, args=(connection, met), daemon=True).start()

    def _greet(self, connection: socket.socket, met: threading.Semaphore) -> None:
        if connection.recv(1) == HELLO:
            self.peers.append(connection)
            met.release()

    def _load(self) -> None:
        say("Starting to load model " + self.model)
        for step in range(1, 5):
            self.ending.wait(float(self.how.get("STUB_LOAD_SECONDS", "0.3")) / 4)
            say(f"Loading safetensors checkpoint shards: {25 * step}% Completed | {step}/4")
        if text := self.how.get("STUB_SAY"):
            say(text.encode().decode("unicode_escape"))

    def _count_down(self) -> None:
        if after := self.how.get("STUB_EXIT_AFTER"):
            threading.Timer(float(after), die, ["Engine core initialization failed (a test)"]).start()
        for peer in self.peers:
            threading.Thread(target=self._watch, args=(peer,), daemon=True).start()

    def _watch(self, peer: socket.socket) -> None:
        try:
            while peer.recv(1):
                pass
        except OSError:
            pass
        if not self.ending.is_set() and self.rank == 0:
            die("EngineDeadError: EngineCore encountered an issue: a worker on another node is gone.")
        self.ending.set()

    def _follow(self) -> int:
        self.ending.wait()
        return 0

    def _serve(self) -> int:
        place = {"path": self.flag("uds")} if "uds" in self.flags else {"host": self.flag("host", "0.0.0.0")}
        engine = StubEngine(0 if "uds" in self.flags else int(self.flag("port", "8000")), **place)
        engine.knobs.models = self.flags.get("served-model-name") or [self.model]
        engine.knobs.api_key = os.environ.get("VLLM_API_KEY") or None
        engine.knobs.piece_seconds = float(self.how.get("STUB_PIECE_SECONDS", "0.02"))
        engine.knobs.silent = self.how.get("STUB_HANG") == "requests"
        if count := self.how.get("STUB_PIECES"):
            engine.knobs.pieces = [TEXT[index % len(TEXT)] for index in range(int(count))]
        engine.listen()
        say("Application startup complete.")
        self.ending.wait()
        say("Shutting down")
        engine.refuse_more()
        deadline = time.monotonic() + float(self.flag("shutdown-timeout", "0"))
        while engine.counts()["num_requests_running"] and time.monotonic() < deadline:
            time.sleep(0.05)
        engine.close()
        return 0


def connect(address: tuple[str, int]) -> socket.socket:
    """Try until somebody listens; two minutes at most."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return socket.create_connection(address, 5)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def say(text: str) -> None:
    """A line of vLLM's log."""
    print(f"INFO {time.strftime('%m-%d %H:%M:%S')} [stub.py:1] {text}", file=sys.stderr, flush=True)


def die(text: str) -> None:
    """The whole process ends, as when the engine's core dies."""
    print(f"ERROR {time.strftime('%m-%d %H:%M:%S')} [stub.py:1] {text}", file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    if sys.argv[1:2] != ["serve"]:
        sys.exit(f"the stub only serves; it was asked: {sys.argv[1:]}")
    sys.exit(Stub(sys.argv[1:], os.environ).run())
