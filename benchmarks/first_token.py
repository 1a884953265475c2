"""Starts a container that serves the model `demo`, and measures the time until a chat request's first token arrives."""

import http.client
import json
import time

from containers import docker, fail, last_words

QUESTION = {"model": "demo", "messages": [{"role": "user", "content": "Who are you?"}], "stream": True, "max_tokens": 8}
PATIENCE_S = 900.0


def _first_token(port: int) -> bool:
    """Whether a streamed chat produced text. Raises OSError or HTTPException while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(QUESTION), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        for line in answer:
            if line.startswith(b"data: {") and any(c["delta"].get("content") for c in json.loads(line[6:])["choices"]):
                return True
        return False
    finally:
        connection.close()


def seconds_to_first_token(container: str, port: int) -> float:
    """Seconds from `docker start` to the first token, asked for ten times a second. SystemExit when the server dies."""
    begin = time.monotonic()
    docker("start", container)
    published = int(docker("port", container, f"{port}/tcp").splitlines()[0].rpartition(":")[2])
    while time.monotonic() < begin + PATIENCE_S:
        try:
            if _first_token(published):
                return time.monotonic() - begin
        except (OSError, http.client.HTTPException):
            if docker("inspect", "--format", "{{.State.Running}}", container) != "true":
                fail(f"{container} stopped: {last_words(container)}", "run its image by hand")
        time.sleep(0.1)
    fail(f"{container} gave no token within {PATIENCE_S:.0f} s", "run its image by hand and read the log")
