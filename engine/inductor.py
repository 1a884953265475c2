"""Gives Inductor what the installation found out about its compiler, so that a first start need not find it out again.

Before Inductor compiles anything it builds six small programs, to learn which instruction sets the compiler can build
for: ten seconds. The answers depend on the compiler and PyTorch, not on the machine, and are found by content.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ANSWERS = Path(sys.prefix, "share", "berth", "inductor")  # written by engine/install/cpu.sh


def hand_out_answers(environ: Mapping[str, str], answers: Path = ANSWERS) -> None:
    """Copy what is missing into TORCHINDUCTOR_CACHE_DIR; a cache that cannot be written to stays as it is."""
    cache = environ.get("TORCHINDUCTOR_CACHE_DIR")
    if not cache:
        return
    for answer in answers.glob("??/*"):
        target = Path(cache, answer.relative_to(answers))
        try:
            if not target.exists():
                _copy_whole(answer, target)
        except OSError:
            return


def _copy_whole(source: Path, target: Path) -> None:
    """Engines may share a cache: none may see a file that is half written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=target.parent)
    os.close(handle)
    shutil.copyfile(source, unfinished)
    os.chmod(unfinished, 0o644)
    os.replace(unfinished, target)
