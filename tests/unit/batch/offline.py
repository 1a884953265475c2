"""A batch answered by engine.batch_vllm, with a stand-in for vLLM that only counts."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine import journal

ROOT = Path(__file__).resolve().parents[3]
URL = "/v1/chat/completions"


def request(number: int, **body: Any) -> str:
    """One line of a batch, without its end."""
    asked = {"messages": [{"role": "user", "content": f"What is {number}?"}], **body}
    return json.dumps({"custom_id": f"r{number}", "method": "POST", "url": URL, "body": asked})


def write(folder: Path, lines: Iterable[str]) -> Path:
    """Put requests into a folder; returns it."""
    folder.mkdir(exist_ok=True)
    (folder / journal.INPUT).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def command(folder: Path, share: str = "0/1") -> list[str]:
    """What the launcher makes of the settings."""
    return [sys.executable, "-P", "-m", "engine.batch_vllm", str(folder), share, "serve", "demo"]


def environ(**how: object) -> dict[str, str]:
    """The stand-in in vLLM's place, and how it behaves."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests/support/offline")))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": paths, **{name: str(value) for name, value in how.items()}}


def answer(folder: Path, share: str = "0/1", **how: object) -> subprocess.CompletedProcess[str]:
    """Answer to the end."""
    return subprocess.run(command(folder, share), env=environ(**how), capture_output=True, text=True, timeout=120)


def begin(folder: Path, share: str = "0/1", **how: object) -> "subprocess.Popen[bytes]":
    """Begin to answer; what it says goes to `said` beside the folder."""
    with open(folder.with_name(f"{folder.name}.said"), "ab") as said:
        return subprocess.Popen(command(folder, share), env=environ(**how), stdout=said, stderr=said)


def entries(folder: Path) -> list[journal.Entry]:
    """What is written down, in the order of the requests."""
    return list(journal.entries(journal.places(folder)))


def rows(folder: Path) -> list[int]:
    """The numbers of the requests in the journals, in the order in which they were written; some may be there twice."""
    found = []
    for path in sorted(folder.glob("answers-*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                found.append(int(json.loads(line)["line"]))
            except (ValueError, KeyError, TypeError):
                continue
    return found
