"""Run in a network namespace of its own: starts the engine, asks it once, prints the answer and its interfaces.

Usage: unshare --net --map-root-user python isolated_start.py ENGINE_PYTHON PORT LOG; settings are in the environment.
"""

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request

SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def main() -> None:
    """The loopback interface is all there is."""
    python, port, log = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    with open(log, "wb") as output:
        engine = subprocess.Popen(
            [python, "-P", "-m", "engine.serve"], env=os.environ, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        while engine.poll() is None and not answers(f"http://127.0.0.1:{port}/health"):
            time.sleep(0.5)
        if engine.poll() is not None:
            sys.exit(f"the engine ended with exit code {engine.returncode}")
        models = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=60))
        body = {"prompt": "Deep learning", "max_tokens": 8, "temperature": 0}
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        answer = json.load(urllib.request.urlopen(asked, timeout=120))
        interfaces = [name for _, name in socket.if_nameindex()]
        print(json.dumps({"model": models["data"][0]["id"], "text": answer["choices"][0]["text"], "net": interfaces}))
    finally:
        engine.terminate()
        engine.wait(90)


def answers(url: str) -> bool:
    """Whether it says 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    main()
