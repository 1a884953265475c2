"""The work of benchmarks/batch: starts a batch, kills what answers it at random places, starts it again, and counts."""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND, ENGINE = "the command", "the engine"


def requests(path: Path, lines: int) -> None:
    """Chat requests, each with a custom_id of its own."""
    with open(path, "w", encoding="utf-8") as file:
        for number in range(lines):
            messages = [{"role": "user", "content": f"What is {number}, and why?"}]
            body = {"messages": messages, "max_tokens": 8 + number % 16}
            request = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            print(json.dumps(request), file=file)


def answered(folder: Path) -> int:
    """Lines in the journals."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("answers-*.jsonl"))


def engine_of(command: int) -> int | None:
    """The command's one child. What that has forked shares its command line, so the parent is what tells them apart."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == command:
            return int(entry.parent.name)
    return None


def begin(place: Path) -> subprocess.Popen[bytes]:
    """Start the batch, or go on with it."""
    words = ["batch", "in.jsonl", "-o", "out.jsonl", "--runtime", "native", "--device", "cpu"]
    command = [sys.executable, "-P", "-m", "berth", *words, "--env", str(ROOT / "env/models/demo.env")]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "microservice")))
    # Few at a time: what has begun when the command is killed is finished, and must not be all that is left.
    quick = {"VLLM_ENFORCE_EAGER": "true", "VLLM_MAX_NUM_SEQS": "32"}
    environ = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", **quick}
    with open(place / "said", "ab") as said:
        return subprocess.Popen(command, cwd=place, env=environ, stdout=said, stderr=said)


def kill_once(place: Path, at: int, whom: str) -> None:
    """Let it answer until `at` lines are written, then SIGKILL the command or the engine, without warning.

    A command that is killed has its engine finish what it has begun, so the place may be passed already: then the kill
    comes as soon as there is one more.
    """
    folder = place / "out.jsonl.batch"
    at = max(at, answered(folder) + 1)
    running = begin(place)
    while answered(folder) < at:
        assert running.poll() is None, (place / "said").read_text()[-3000:]
        time.sleep(0.05)
    engine = engine_of(running.pid)
    assert engine is not None, "no engine answers"
    os.kill(running.pid if whom == COMMAND else engine, signal.SIGKILL)
    running.wait()
    while Path(f"/proc/{engine}").exists():  # it finishes what it has begun; whose answers come next must be certain
        time.sleep(0.05)


def main() -> None:
    """Kill, go on, count, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="berth-batch-") as name:
        place = Path(name)
        requests(place / "in.jsonl", options.lines)
        # Not in the last fifth, where a kill may come too late.
        places = sorted(random.sample(range(1, options.lines * 4 // 5), options.kills))
        kills = [(at, (ENGINE, COMMAND)[index % 2]) for index, at in enumerate(places)]
        for at, whom in kills:
            kill_once(place, at, whom)
        code = begin(place).wait()
        rows = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    names = [row["custom_id"] for row in rows]
    found = {
        "lines": options.lines,
        "killed": [f"{whom} after {at}" for at, whom in kills],
        "exit_code": code,
        "answers": len(names),
        "distinct": len(set(names)),
        "in_order": names == [f"r{number}" for number in range(options.lines)],
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
