"""The logs of a deployment's pods, as `kubectl logs` prints them."""

import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator

from berth.errors import failed
from berth.kubernetes import kubectl, pods

_LINE = re.compile(r"\[pod/[^/]+/([^\]]+)\] (.*)")


def read(part: str | None, follow: bool, tail: int | None) -> Iterator[str]:
    """Their lines; with both parts, each begins with its part's name. At the end it may raise BerthError."""
    selector = f"{pods.PART_OF}{f',{pods.NAME}={part}' if part else ''}"
    lines = -1 if tail is None else tail
    words = ["logs", f"--selector={selector}", "--prefix", f"--tail={lines}", "--max-log-requests=64"]
    command = kubectl.words(*words, *(["--follow"] if follow else []))
    with (
        tempfile.TemporaryFile("w+", errors="replace") as said,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdout
        try:
            for line in process.stdout:
                name, text = split(line.rstrip("\n"))
                yield text if part else f"{name:6} | {text}"
        except BaseException:
            process.terminate()
            raise
        if process.wait():
            said.seek(0)
            hint = f"try it yourself: {shlex.join(command)}"
            raise failed(f"kubectl logs failed: {kubectl.reason(said.read())}", hint)


def split(line: str) -> tuple[str, str]:
    """The container's name and the line, of what `kubectl logs --prefix` prints."""
    found = _LINE.fullmatch(line)
    return (found[1], found[2]) if found else ("", line)
