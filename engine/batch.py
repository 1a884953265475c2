"""Answers the requests of a batch's folder with vLLM's offline engine, by the same settings as serving.

`python -P -m engine.batch FOLDER [PART/OF]` (see engine.journal). What is answered already is passed over. Ends with 0
when every request of its share is done, with 75 when it was stopped before that, else with the launcher's codes.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from engine import serve
from engine.journal import INPUT, Share
from engine.messages import Exit, Problem, complain

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: go on later


def command(argv: Sequence[str], folder: Path, share: Share) -> list[str]:
    """The command that serves, as one that answers a batch: its flags are taken over as they stand."""
    through = ["--share-one-import"] if "engine.prefork" in argv[: list(argv).index("serve")] else []
    return in_its_place(argv, "engine.batch_vllm", [*through, str(folder), f"{share.part}/{share.of}"])


def in_its_place(argv: Sequence[str], module: str, words: Sequence[str]) -> list[str]:
    """The command that serves, with a module and its words in the place of vLLM's program; from `serve` on as it is."""
    at = list(argv).index("serve")
    python = sys.executable if argv[0] == sys.executable else str(Path(argv[0]).with_name("python"))
    return [python, "-P", "-m", module, *words, *argv[at:]]


def main() -> int:
    """Run the launcher for this process's arguments; returns only with a problem, or for a dry run."""
    mode = [word for word in sys.argv[1:] if word in ("--check", "--dry-run")]
    words = [word for word in sys.argv[1:] if word not in mode]
    try:
        folder, share = Path(words[0]), Share.parse(words[1] if len(words) > 1 else "0/1")
        if len(words) > 2:
            raise ValueError
    except (IndexError, ValueError):
        complain(Problem("engine.batch needs a folder and a share", "python -P -m engine.batch FOLDER 0/1"))
        return Exit.BAD_SETTING
    if not mode and not (folder / INPUT).is_file():
        complain(Problem(f"{folder / INPUT} is not there", "berth batch makes it"))
        return Exit.MISSING_PREREQUISITE
    if os.environ.get("VLLM_NNODES", "").strip() not in ("", "1"):
        complain(Problem("a batch is answered on one node", "leave VLLM_NNODES out, or use fewer, larger GPUs"))
        return Exit.BAD_SETTING
    return serve.launch(mode, os.environ, lambda argv: command(argv, folder, share))


if __name__ == "__main__":
    sys.exit(main())
