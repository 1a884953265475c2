"""The calibration set: a file of prompts such as the model will be asked, as JSONL or parquet.

A row has `messages` (a chat), or `text`, or `question` with or without `system_prompt`; a line of OpenAI's batch format
is a chat as well. A pickle is known by its first byte, and read by nothing here: to load one is to run what it holds.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.messages import Exit, Problem

JSONL, PARQUET, PICKLE = "JSONL", "parquet", "pickle"
_FORMS = "a row has `messages`, or `text`, or `question` (and `system_prompt`)"
Row = Mapping[str, Any]


class Refused(Exception):
    """What was asked for cannot be done, as one problem."""

    def __init__(self, sentence: str, hint: str, exit_code: Exit = Exit.BAD_SETTING) -> None:
        self.problem = Problem(sentence, hint, exit_code)
        super().__init__(sentence)


def kind(path: Path) -> str:
    """The kind of a file by its first bytes, since a mounted file keeps no name. Raises Refused for none of them."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise Refused(
            f"{path}: {error.strerror}",
            "give the file of a calibration set that you may read",
            Exit.MISSING_PREREQUISITE,
        ) from None
    if head.startswith(b"PAR1"):
        return PARQUET
    # Protocol 2 and newer begin so, and older ones are no text that JSON begins with.
    if head.startswith(b"\x80"):
        return PICKLE
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return JSONL
    raise Refused(f"{path}: neither JSONL nor parquet", f"write one JSON object a line; {_FORMS}")


def read(path: Path, limit: int | None = None) -> list[Row]:
    """The first rows of a JSONL or parquet file, checked. Raises Refused with the line of the first that is none."""
    found: list[Row] = []
    for number, row in _rows(path):
        if turns(row) is None:
            raise Refused(f"{path}:{number}: no prompt in this row", _FORMS)
        found.append(row)
        if limit and len(found) == limit:
            break
    if not found:
        raise Refused(f"{path}: there is no row in it", _FORMS)
    return found


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    if (form := kind(path)) == PICKLE:
        raise Refused(
            f"{path}: a pickle, and to read one is to run what it holds",
            "make JSONL of it where it comes from: pandas.read_pickle(FILE).to_json(NEW, orient='records', lines=True)",
        )
    yield from _parquet(path) if form == PARQUET else _jsonl(path)


def _jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _object(path, number, line)
    except UnicodeDecodeError:
        raise Refused(f"{path}: not UTF-8 text", "save the file as UTF-8") from None


def _object(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise Refused(f"{path}:{number}: not a JSON object", "write one JSON object a line, without line breaks in it")
    return row


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=256) for row in batch.to_pylist())
            yield from enumerate(rows, 1)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise Refused(f"{path}: not a whole parquet file ({error})", "copy it again") from None


def turns(row: Row) -> list[dict[str, str]] | str | None:
    """A row's chat, or its text as it stands; None for a row with no prompt."""
    body = row.get("body")
    messages = row.get("messages") or (body.get("messages") if isinstance(body, dict) else None)
    if messages is not None:
        return _chat(messages)
    if isinstance(text := row.get("text"), str) and text:
        return text
    if not isinstance(question := row.get("question"), str) or not question:
        return None
    system, answer = row.get("system_prompt"), row.get("response")
    chat = [{"role": "system", "content": system}] if isinstance(system, str) and system else []
    chat.append({"role": "user", "content": question})
    return [*chat, {"role": "assistant", "content": answer}] if isinstance(answer, str) and answer else chat


def _chat(messages: object) -> list[dict[str, str]] | None:
    if not isinstance(messages, list) or not messages or not all(isinstance(turn, dict) for turn in messages):
        return None
    chat = [{"role": turn.get("role"), "content": _text(turn.get("content"))} for turn in messages]
    good = all(isinstance(value, str) and value for turn in chat for value in turn.values())
    return chat if good else None


def _text(content: object) -> object:
    """A message's text; of a list of parts, the text parts."""
    if not isinstance(content, list):
        return content
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(part for part in parts if isinstance(part, str))


def question(row: Row) -> tuple[str, str]:
    """A row as Gaudi's calibration wants it: what the system is told, and the last thing that a user says."""
    said = turns(row)
    if isinstance(said, str) or said is None:
        return "", said or ""
    system = "\n".join(turn["content"] for turn in said if turn["role"] in ("system", "developer"))
    users = [turn["content"] for turn in said if turn["role"] == "user"]
    return system, users[-1] if users else said[-1]["content"]
