"""Why an engine failed, told from the end of its log."""

import re
from collections.abc import Sequence

from berth.errors import Exit, Problem
from berth.slurm.failures import KNOWN, Known

LOG_END = 1000  # lines: several files, in each of which several processes write a traceback when one of them fails
LONGEST = 4000  # characters of a line that are looked at

# True of healthy engines too.
_HARMLESS = re.compile(r" (?:INFO|WARNING|DEBUG) \d\d-\d\d |^(?:INFO|WARNING|DEBUG)\b|^berth: |FutureWarning")


def explain(lines: Sequence[str], failures: Sequence[Known] = KNOWN) -> Problem | None:
    """The known failure that the last lines of a log tell of, else the launcher's own refusal; None for neither."""
    lines = [line[:LONGEST] for line in lines[-LOG_END:]]
    text = "\n".join(line for line in lines if not _HARMLESS.search(line))
    for known in failures:
        if match := known.pattern.search(text):
            found = {name: value or "" for name, value in match.groupdict().items()}
            sentence = re.sub(r" +(?=[,:]| |$)", "", known.sentence.format(**found)).rstrip(" :,")
            return Problem(sentence, known.hint.format(**found), known.exit_code)
    return _refusal("\n".join(lines))


def _refusal(text: str) -> Problem | None:
    """What the launcher or the job script said itself."""
    said = re.findall(r"^berth: error: (.+)$", text, re.MULTILINE)
    hints = re.findall(r"^berth: hint: (.+)$", text, re.MULTILINE)
    return Problem(said[-1], hints[-1] if hints else "the log says more", Exit.FAILED) if said else None
