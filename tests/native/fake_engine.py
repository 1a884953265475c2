"""Stands where the engine's Python would: `bin/python -P -m engine.serve` of a copied checkout runs this.

It serves the stub engine, with a child of its own as vLLM has; the copy's fake.json says how it behaves.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

KIT = Path(sys.argv[0]).absolute().parents[3]

WORKER = """
import signal, sys, time
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    time.sleep(60)
"""


def main() -> None:
    """Behave as fake.json says: {"exit": 2, "say": "…"}, {"silent": true}, {"stubborn": true}: its worker
    ignores SIGTERM, {"deaf": true}: it does so itself; or serve."""
    how = json.loads((KIT / "fake.json").read_text()) if (KIT / "fake.json").exists() else {}
    (KIT / "environ.json").write_text(json.dumps(dict(os.environ)))
    print(how.get("say", "berth: stub engine (a test)"), file=sys.stderr, flush=True)
    if "exit" in how:
        sys.exit(how["exit"])
    if how.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The worker bears the checkout's path, by which a test finds what is left of it.
    temper = "stubborn" if how.get("stubborn") else "docile"
    subprocess.Popen([sys.executable, "-c", WORKER, f"worker of {KIT}", temper])
    if how.get("silent"):
        threading.Event().wait()
    sys.path.insert(0, os.environ["FAKE_ENGINE_ROOT"])
    from tests.support.stub_engine import StubEngine

    engine = StubEngine(int(os.environ["LLM_VLLM_PORT"]), "127.0.0.1")
    engine.knobs.models = [os.environ["LLM_VLLM_MODEL_NAME"]]
    engine.knobs.piece_seconds = 0.02
    engine.listen()
    threading.Event().wait()


main()
