"""A kubectl without a cluster: answers from files of a folder, and writes down what it was asked.

`objects.json` is what `get` lists, `refused` what the next change is refused with, `log` what `logs` prints, and
`plain` says that no operator is installed. Building kustomizations is the real one's.
"""

import json
import os
import signal
import sys
from pathlib import Path


def main() -> int:
    """Do as asked."""
    folder = Path(os.environ["FAKE_KUBECTL"])
    words = [word for word in sys.argv[1:] if not word.startswith("--request-timeout")]
    if words[0] == "kustomize":
        os.execv(os.environ["REAL_KUBECTL"], ["kubectl", *words])
    given = "" if "--filename=-" not in words else sys.stdin.read()
    with (folder / "calls").open("a", encoding="utf-8") as calls:
        calls.write(json.dumps({"words": words, "given": given}) + "\n")
    if not (folder / "objects.json").exists():
        sys.stderr.write("The connection to the server localhost:8080 was refused - did you specify the right host?\n")
        return 1
    if words[0] == "get" and "--raw" not in words:
        kinds = {kind.partition(".")[0].removesuffix("s") for kind in words[1].split(",")}
        items = json.loads((folder / "objects.json").read_text())
        sys.stdout.write(json.dumps({"items": [each for each in items if each["kind"].lower() in kinds]}))
    elif words[0] == "logs":
        sys.stdout.write((folder / "log").read_text())
        sys.stdout.flush()
        return _refused(folder)
    elif words[0] == "port-forward":
        sys.stdout.write("Forwarding from 127.0.0.1\n")
        sys.stdout.flush()
        signal.pause()
    elif words[0] == "api-resources":
        if not (folder / "plain").exists():
            sys.stdout.write("leaderworkersets.leaderworkerset.x-k8s.io\n")
    else:
        return _refused(folder)
    return 0


def _refused(folder: Path) -> int:
    if not (folder / "refused").exists():
        return 0
    sys.stderr.write((folder / "refused").read_text())
    return 1


if __name__ == "__main__":
    sys.exit(main())
