"""A job for tests of tunnels: a door without an engine, which answers at once and keeps its endpoint file as jobs do.

Runs on a node as `python3 stand_in_door.py DEPLOYMENT_DIRECTORY [--door-on-loopback] [--login-port N]`; answers
carry the job's id, so that a test knows who served it. Standard library only.
"""

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BEAT_S = 1.0
DRAIN_S = 1.0


class Door(BaseHTTPRequestHandler):
    """The routes that a client, and the local door, ask for."""

    protocol_version = "HTTP/1.1"
    key = b""

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refused(self) -> bool:
        if self.headers.get("Authorization", "").encode() == b"Bearer " + self.key:
            return False
        self._answer(401, {"error": {"message": "no key", "type": "AuthenticationError"}})
        return True

    def do_GET(self) -> None:
        """Health and models."""
        if not self._refused():
            self._answer(200, {"object": "list", "data": [{"id": "demo", "object": "model", "max_model_len": 2048}]})

    def do_POST(self) -> None:
        """A whole answer, the job's id for its text."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if not self._refused():
            model = json.loads(body or b"{}").get("model", "demo")
            choice = {"index": 0, "finish_reason": "stop"}
            choice["message"] = {"role": "assistant", "content": f"job {os.environ['SLURM_JOB_ID']}"}
            self._answer(
                200, {"id": "1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}
            )

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main() -> int:
    """Serve until SIGTERM, then drain for a moment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--loopback", action="store_true")
    parser.add_argument("--login-port", type=int)
    given = parser.parse_args()
    os.umask(0o077)
    address = socket.gethostbyname(socket.gethostname())
    Door.key = (given.directory / "api_key").read_bytes().strip()
    server = ThreadingHTTPServer(("127.0.0.1" if given.loopback else address, 0), Door)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    job = os.environ["SLURM_JOB_ID"]
    run = given.directory / "runs" / job
    run.mkdir(parents=True, exist_ok=True)
    port = server.server_address[1]
    if given.login_port is not None:
        (run / "port").write_text(str(port))  # for the reverse tunnel that the batch script opens

    def say(state: str, reason: str = "") -> None:
        now = time.time()
        said = {
            "schema": 1, "deployment": given.directory.name, "run": job, "job": job, "state": state, "reason": reason,
            "model": "demo", "device": "cpu", "base_url": f"http://{address}:{port}", "host": address, "port": port,
            "node": os.environ["SLURMD_NODENAME"], "nodes": [os.environ["SLURMD_NODENAME"]],
            "login_port": given.login_port, "key_file": str(given.directory / "api_key"), "started": began,
            "ends": began + 3600, "heartbeat": now, "restarts": 0, "sif": "", "watch": {},
        }  # fmt: skip
        draft = run / "endpoint.json.new"
        draft.write_text(json.dumps(said))
        draft.replace(run / "endpoint.json")

    began = time.time()
    while not stop.wait(BEAT_S):
        say("ready")
    say("draining")
    time.sleep(DRAIN_S)
    say("stopped", "it was told to stop")
    return 0


if __name__ == "__main__":
    sys.exit(main())
