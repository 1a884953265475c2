"""Runs where Apptainer is: starts a server from a SIF, prints the seconds until it is ready, and stops it.

`python3 sif_start.py PORT COMMAND…`; standard library only. The server's log goes to PORT.log in the working directory.
"""

import http.client
import json
import subprocess
import sys
import time

LATEST_S = 900.0
QUESTION = {"model": "demo", "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 8}


def answers(port: int) -> bool:
    """Whether it says that it is healthy."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def chat(port: int) -> str:
    """The first words of an answer: a server that is ready and cannot talk does not count."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/v1/chat/completions", json.dumps(QUESTION), {"Content-Type": "application/json"})
    return str(json.load(connection.getresponse())["choices"][0]["message"]["content"])


def main() -> int:
    """Exit code 1 when the server ends or is late."""
    port, command = int(sys.argv[1]), sys.argv[2:]
    with open(f"{port}.log", "wb") as log:
        began = time.monotonic()
        server = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            while not answers(port):
                if server.poll() is not None or time.monotonic() - began > LATEST_S:
                    return 1
                time.sleep(0.05)
            seconds = time.monotonic() - began
            print(json.dumps({"seconds": round(seconds, 2), "answer": chat(port)}))
        finally:
            server.terminate()
            server.wait(120)
    return 0


if __name__ == "__main__":
    sys.exit(main())
