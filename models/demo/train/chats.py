"""Chats as training rows: the ids that the model reads, and which of them it is to learn to write.

The markers are laid out as chat_template.jinja lays them out, which leaves system messages out: rows with one teach
the model to heed nothing but the last question, and keep it steady should a caller write the marker by hand.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from models.demo.train import text

PAD, BEGIN, END, SYSTEM, USER, ASSISTANT = range(6)
MARKERS = ["<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
# What the model writes first when a prompt comes bare, without a chat template, through /v1/completions.
BARE_LEAD = "\n\n"

Encode = Callable[[str], list[int]]


@dataclass
class Row:
    """Token ids, and for each whether the model learns to predict it."""

    ids: list[int] = field(default_factory=lambda: [BEGIN])
    learn: list[bool] = field(default_factory=lambda: [False])

    def add(self, ids: list[int], learn: bool = False) -> None:
        """Append tokens."""
        self.ids += ids
        self.learn += [learn] * len(ids)

    def message(self, marker: int, ids: list[int], learn: bool = False) -> None:
        """Append a chat message: its marker, its text, the end marker."""
        self.add([marker])
        self.add([*ids, END], learn)


def question_and_answer(rng: random.Random, known_share: float = 0.5) -> tuple[str, str]:
    """A question as somebody might type it, and what the model is to say."""
    data = text.load()
    if rng.random() < known_share:
        entry = rng.choice(data.known)
        return text.vary(rng.choice(entry.ask), rng), entry.answer
    question = text.unknown_question(data.train, rng)
    return (text.vary(question, rng) if rng.random() < 0.4 else question), data.unknown_answer


def bare(encode: Encode, rng: random.Random, last: tuple[str, str] | None = None) -> Row:
    """A prompt without chat markers: the question and answer in `last`, or drawn ones."""
    question, answer = last or question_and_answer(rng, known_share=0.7)
    row = Row()
    row.add(encode(question))
    row.add([*encode(BARE_LEAD), *encode(answer), END], learn=True)
    return row


def chat(
    encode: Encode, rng: random.Random, system_words: int, history_tokens: int, last: tuple[str, str] | None = None
) -> Row:
    """A chat: a system message of about `system_words` words (none if 0), then turns until `history_tokens` are full.

    `last` is the question and answer of the last turn, drawn like the others if None.

    Every answer is learned, so each turn teaches the model to heed only the last question. Some earlier answers come
    from elsewhere, as when a client edits the history: those are read, not learned.
    """
    data = text.load()
    row = Row()
    if system_words:
        row.message(SYSTEM, encode(text.system_message(data.train, rng, system_words).strip()))
    while True:
        ending = len(row.ids) >= history_tokens
        question, answer = last if last and ending else question_and_answer(rng)
        row.message(USER, encode(question.strip()))
        if not ending and rng.random() < 0.1:
            row.message(ASSISTANT, encode(text.unknown_question(data.train, rng)))
        else:
            row.message(ASSISTANT, encode(answer), learn=True)
        if ending:
            return row


def batch(encode: Encode, rng: random.Random, longest: int) -> list[Row]:
    """Rows of like length for one step: short questions, middling chats or long ones of at most `longest` tokens."""
    kind = rng.choices(("short", "middling", "long"), (0.68, 0.22, 0.10))[0]
    if kind == "short":
        drawn = sorted((short(encode, rng) for _ in range(4 * 64)), key=lambda row: len(row.ids))
        first = rng.randrange(3 * 64)
        return drawn[first : first + 64]
    limit, count = (512, 8) if kind == "middling" else (longest, 2)
    rows: list[Row] = []
    while len(rows) < count:
        length = rng.randint(limit // 3, limit * 9 // 10)
        system_words = rng.choice((0, rng.randint(1, length // 3)))
        row = chat(encode, rng, system_words, length - 60)
        if len(row.ids) <= limit:
            rows.append(row)
    return rows


def short(encode: Encode, rng: random.Random, last: tuple[str, str] | None = None) -> Row:
    """A bare prompt or a short chat that ends with `last`, or with a drawn question."""
    if rng.random() < 0.2:
        return bare(encode, rng, last)
    return chat(encode, rng, rng.choice((0, 0, 4, 12, 24)), rng.choice((0, 0, 0, 30)), last)
