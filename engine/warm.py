"""Starts the engine by the settings at hand, on a socket that nobody else reaches, and ends it once it answers.

`python -P -m engine.warm`. What a first start downloads and compiles is then in the caches, and the next start with the
same settings finds it there: it is the very command that serves. Ends with 0, with 75 when it was stopped before that,
else with the engine's code.
"""

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engine import names
from engine.batch import STOPPED
from engine.messages import Exit, Problem, complain, say
from engine.unix_http import UnixConnection

LOOK_EVERY_S = 0.5
LOOK_TIMEOUT_S = 2.0
ENDING_S = 75.0


def environment(socket: Path) -> dict[str, str]:
    """This process's, with a socket in place of the address; neither enters the key of compiled code."""
    environ = {name: value for name, value in os.environ.items() if name not in (names.PORT, names.HOST)}
    environ.pop(names.PHASE_FILE, None)
    return {**environ, "VLLM_UDS": str(socket)}


def answers(socket: Path) -> bool:
    """Whether the engine has loaded; also where it asks for a key."""
    connection = UnixConnection(str(socket), LOOK_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status in (http.client.OK, http.client.UNAUTHORIZED)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> int:
    """Start, wait, end; return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="berth-warm-") as folder:
        socket = Path(folder, "engine.sock")
        engine = subprocess.Popen([sys.executable, "-P", "-m", "engine.serve", *sys.argv[1:]], env=environment(socket))
        try:
            while engine.poll() is None and not answers(socket):
                time.sleep(LOOK_EVERY_S)
            if engine.returncode is not None:
                return engine.returncode or Exit.FAILED
            say(f"warm: the engine answers after {time.monotonic() - began:.0f} s")
        except KeyboardInterrupt:
            return STOPPED
        finally:
            _end(engine)
    return Exit.OK


def _end(engine: "subprocess.Popen[bytes]") -> None:
    if engine.poll() is None:
        engine.terminate()
    try:
        engine.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        complain(Problem("the engine did not end by itself", "it was killed; its caches are kept", Exit.FAILED))
        engine.kill()
        engine.wait()


if __name__ == "__main__":
    sys.exit(main())
