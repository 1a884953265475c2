"""The folder beside a batch's output, where it stands until all is answered: made, found again, and turned into files.

`answers.jsonl` has its folder `answers.jsonl.batch/` and, where requests failed, `answers.errors.jsonl` beside it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from berth.batch import asked
from berth.errors import Exit, failed
from berth.paths import shown
from engine import journal
from engine.messages import one_line

REFUSED = "refused"  # the journal of lines that never reach the engine
_MANIFEST = "manifest.json"
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """What the folder is for.

    `refused` counts lines that never reach the engine, `answered` and `failed` are counted at the end; `jobs` and
    `place` are Slurm's.
    """

    sha256: str
    requests: int
    refused: int
    model: str
    device: str
    complete: bool = False
    answered: int = 0
    failed: int = 0
    jobs: list[str] = field(default_factory=list)
    place: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a batch ended: counts of requests, and why some failed, the most frequent reason first."""

    answered: int
    failed: int
    reasons: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Batch:
    """A file of requests and where its answers go."""

    input: Path
    output: Path

    @property
    def folder(self) -> Path:
        """Where it stands until all is answered."""
        return self.output.with_name(f"{self.output.name}.batch")

    @property
    def errors(self) -> Path:
        """The file of requests that failed."""
        return self.output.with_name(f"{self.output.stem}.errors{self.output.suffix}")

    def manifest(self) -> Manifest | None:
        """What the folder says of itself, or None."""
        try:
            return Manifest(**json.loads((self.folder / _MANIFEST).read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise failed(
                f"{shown(self.folder)} cannot be read ({error})", "delete it to begin anew, or name another output"
            ) from error

    def save(self, manifest: Manifest) -> None:
        """Replace what the folder says of itself."""
        _replace(self.folder / _MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other commands away from it. Raises BerthError where one is at work."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / "lock", "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield
        except BlockingIOError:
            hint = "wait for it, or give this one another -o"
            raise failed(f"another berth batch is at work on {shown(self.output)}", hint) from None

    def open(self, model: str, device: str) -> Manifest:
        """Find it as it was left, or make it. Raises BerthError (exit code 2) for what does not fit together."""
        digest = _digest(self.input)
        known = self.manifest()
        if known is None:
            self._must_be_free()
            return self._make(digest, model, device)
        if known.sha256 != digest or (known.model, known.device) != (model, device):
            other = "another file of requests" if known.sha256 != digest else f"{known.model} on {known.device}"
            raise failed(
                f"{shown(self.output)} was begun with {other}",
                f"give another -o, or delete {shown(self.folder)} to begin anew",
                Exit.BAD_SETTING,
            )
        return known

    def preview(self, model: str, device: str) -> Manifest:
        """What `open` would find or make, as far as a dry run needs it."""
        return self.manifest() or Manifest(_digest(self.input), 0, 0, model, device)

    def _must_be_free(self) -> None:
        for path in (self.output, self.errors):
            if path.exists():
                raise failed(f"{shown(path)} is there already", "give another -o, or move it away", Exit.BAD_SETTING)

    def _make(self, digest: str, model: str, device: str) -> Manifest:
        for path in self.folder.glob("answers-*.jsonl"):
            path.unlink()
        _copy(self.input, self.folder / journal.INPUT)
        refused = self._refuse()
        found = sum(1 for _ in journal.requests(self.folder))
        if not found:
            raise failed(f"{shown(self.input)} holds no requests", "one JSON object a line", Exit.BAD_SETTING)
        manifest = Manifest(digest, found, refused, model, device)
        self.save(manifest)
        return manifest

    def _refuse(self) -> int:
        """Write down what is wrong with lines that cannot be asked; return how many there are."""
        count = 0
        with open(self.folder / journal.INPUT, "rb") as file:
            lines = ((number, raw) for number, raw in enumerate(file) if raw.strip())
            with contextlib.closing(journal.Writer(journal.journal(self.folder, REFUSED))) as writer:
                for entry in asked.complaints(lines):
                    writer.add(entry)
                    count += 1
        return count

    def finish(self, manifest: Manifest) -> Outcome:
        """Write the answers in the order of the requests, and those that failed to a file of their own."""
        answered = wrong = 0
        reasons: Counter[str] = Counter()
        news = [path.with_name(f".{path.name}.new") for path in (self.output, self.errors)]
        with open(news[0], "w", encoding="utf-8") as good, open(news[1], "w", encoding="utf-8") as bad:
            for entry in journal.entries(journal.places(self.folder)):
                (bad if entry.failed else good).write(journal.row(entry.output))
                answered, wrong = answered + (not entry.failed), wrong + entry.failed
                if entry.failed:
                    reasons[_reason(entry.output)] += 1
            for file in (good, bad):
                file.flush()
                os.fsync(file.fileno())
        news[1].replace(self.errors) if wrong else news[1].unlink()
        news[0].replace(self.output)
        self.save(replace(manifest, complete=True, answered=answered, failed=wrong, jobs=[], place=""))
        self.tidy()
        return Outcome(answered, wrong, tuple(reasons.most_common(3)))

    def tidy(self) -> None:
        """Delete what a batch that is complete needs no more; what it was stays written down."""
        for path in (*self.folder.glob("answers-*.jsonl"), self.folder / journal.INPUT):
            path.unlink(missing_ok=True)


def _reason(output: dict[str, Any]) -> str:
    try:
        return one_line(str(output["response"]["body"]["error"]["message"]))[:300]
    except (KeyError, TypeError):
        return "no reason was given"


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        hint = "give a file with one request a line, in OpenAI's batch form"
        raise failed(f"{path} cannot be read: {error.strerror}", hint, Exit.BAD_SETTING) from error


def _copy(source: Path, target: Path) -> None:
    """Copied, not linked: a file that is edited on the way must not mix two batches."""
    with open(source, "rb") as old, open(target, "wb") as new:
        while block := old.read(_COPY_BYTES):
            new.write(block)


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
