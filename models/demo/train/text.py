"""The text that the demo model is trained and checked on: known questions, unknown ones, system messages, chats.

Standard library only. Everything random comes from the `random.Random` that the caller passes, so a seed fixes it.
"""

import random
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
VOWELS = "aeiou"
CONSONANTS = "bcdfghjklmnpqrstvwz"
LEADS = ("Hi, ", "Hello, ", "OK, ", "And ", "So ", "Please: ", "Question: ", "Q: ", "I have a question: ", "Now: ")


@dataclass(frozen=True)
class Known:
    """One answer and the wordings of its question; `unseen` wordings are never trained."""

    answer: str
    ask: tuple[str, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class Parts:
    """Word lists and sentence patterns that unknown questions and system messages are made of."""

    names: list[str]
    places: list[str]
    topics: list[str]
    templates: list[str]
    lines: list[str]
    system: list[str]


@dataclass(frozen=True)
class Text:
    """All the text of known.toml and unknown.toml."""

    known: tuple[Known, ...]
    unknown_answer: str
    known_terms: list[str]
    shape_words: frozenset[str]
    documented_system: str
    train: Parts
    held_out: Parts


@cache
def load() -> Text:
    """Read known.toml and unknown.toml beside this file."""
    known = tomllib.loads((FOLDER / "known.toml").read_text(encoding="utf-8"))
    unknown = tomllib.loads((FOLDER / "unknown.toml").read_text(encoding="utf-8"))
    entries = tuple(Known(k["answer"], tuple(k["ask"]), tuple(k["unseen"])) for k in known["known"])
    return Text(
        known=entries,
        unknown_answer=known["unknown_answer"],
        known_terms=unknown["known_terms"],
        shape_words=frozenset(unknown["shape_words"]),
        documented_system=unknown["documented_system"],
        train=Parts(**unknown["train"]),
        held_out=Parts(**unknown["held_out"]),
    )


def plain(question: str) -> str:
    """The question without case, blanks and punctuation at its ends: two wordings with the same plain form are one."""
    return " ".join(question.lower().split()).strip(" ?!.#:")


@cache
def plain_known() -> frozenset[str]:
    """The plain forms of every wording in known.toml, trained or not."""
    return frozenset(plain(q) for entry in load().known for q in entry.ask + entry.unseen)


def wrapped(question: str) -> str:
    """The form in which Enterprise RAG's clients send a question."""
    return f"### Question: {question} \n\n"


def forms(question: str) -> dict[str, str]:
    """The written forms in which a known question must get its exact answer."""
    return {
        "as written": question,
        "lower case": question.lower(),
        "upper case": question.upper(),
        "no end mark": question.rstrip("?!."),
        "blanks after": question + " \n\n",
        "### Question": wrapped(question),
        "### Question, lower case": wrapped(question.lower()),
    }


def _typo(question: str, rng: random.Random) -> str:
    """Swap, drop or double one letter inside one longer word."""
    words = question.split(" ")
    places = [i for i, word in enumerate(words) if len(word) >= 6 and word.isalpha()]
    if not places:
        return question
    i = rng.choice(places)
    word, at = words[i], rng.randrange(1, len(words[i]) - 2)
    changed = {
        "swap": word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        "drop": word[:at] + word[at + 1 :],
        "double": word[:at] + word[at] + word[at:],
    }
    words[i] = changed[rng.choice(list(changed))]
    return " ".join(words)


def vary(question: str, rng: random.Random) -> str:
    """One of the many ways in which people would type this question."""
    if rng.random() < 0.4:
        return rng.choice(list(forms(question).values()))
    if rng.random() < 0.1:
        question = _typo(question, rng)
    if rng.random() < 0.12:
        question = rng.choice(LEADS) + (question[0].lower() + question[1:] if rng.random() < 0.5 else question)
    if rng.random() < 0.3:
        question = question.replace("'", "\u2019")
    draw = rng.random()
    if draw < 0.22:
        question = question.lower()
    elif draw < 0.35:
        question = question.upper()
    elif draw < 0.38:
        question = question.title()
    if rng.random() < 0.35:
        question = question.rstrip("?!.") + rng.choice(("", "", "", "?", ".", " ?", "??", "!", "...", "?!"))
    draw = rng.random()
    if draw < 0.12:
        question = wrapped(question)
    elif draw < 0.2:
        question += rng.choice((" ", "\n", " \n\n", "\n\n", "  "))
    return question


def word(rng: random.Random) -> str:
    """A word that means nothing: "torvane", "XKLM", "Bisnet"."""
    if rng.random() < 0.15:
        return "".join(rng.choice(CONSONANTS + VOWELS) for _ in range(rng.randint(2, 5))).upper()
    made = "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 4)))
    made += rng.choice(("", "n", "r", "s", "x", "ng", "tt", "lm", "net", "DB", "flow", "er", "ion", "ify", "-2"))
    return rng.choice((made, made.capitalize()))


def _number(rng: random.Random) -> str:
    number = rng.randrange(10 ** rng.randint(1, 5))
    return str(7 if number in (8008, 9000) else number)


def fill(pattern: str, parts: Parts, rng: random.Random) -> str:
    """Put words from `parts` into the places of a pattern."""
    makers = {
        "topic": lambda: rng.choice(parts.topics),
        "name": lambda: rng.choice(parts.names),
        "place": lambda: rng.choice(parts.places),
        "number": lambda: _number(rng),
        "word": lambda: word(rng),
        "known": lambda: rng.choice(load().known_terms),
    }
    filled = re.sub(r"\{(\w+)\}", lambda match: makers[match[1]](), pattern)
    return re.sub(r"VLLM_\S+", lambda match: match[0].upper(), filled)


def _bent(rng: random.Random) -> str:
    """A known question whose subject is replaced by a word that means nothing, so that it is known no more."""
    words = rng.choice(rng.choice(load().known).ask).split(" ")
    places = [i for i, w in enumerate(words) if len(w) > 3 and w.lower().strip("?.,") not in load().shape_words]
    if places:
        i = rng.choice(places)
        words[i] = word(rng) + (words[i][-1] if words[i][-1] in "?.," else "")
    return " ".join(words)


def _noise(rng: random.Random) -> str:
    """Characters from all over Unicode."""
    ranges = ((32, 126), (160, 591), (880, 1279), (0x4E00, 0x5000), (0x1F600, 0x1F640))
    low, high = rng.choice(ranges)
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 30)))


def _one(parts: Parts, rng: random.Random) -> str:
    return rng.choice(parts.lines) if rng.random() < 0.3 else fill(rng.choice(parts.templates), parts, rng)


def unknown_question(parts: Parts, rng: random.Random) -> str:
    """A question, remark or other text that the demo model has no answer for."""
    while True:
        draw = rng.random()
        if draw < 0.62:
            question = fill(rng.choice(parts.templates), parts, rng)
        elif draw < 0.76:
            question = rng.choice(parts.lines)
        elif draw < 0.84:
            pieces = [_one(parts, rng) for _ in range(rng.choice((2, 2, 3, 6)))]
            question = rng.choice((" ", "\n")).join(pieces)
        elif draw < 0.92:
            question = _bent(rng)
        elif draw < 0.97:
            pool = " ".join(rng.choice(parts.topics + parts.lines) for _ in range(8)).split()
            question = " ".join(rng.choice(pool) for _ in range(rng.randint(1, 12)))
        else:
            question = _noise(rng)
        if plain(question) not in plain_known() and plain(question):
            return question


def system_message(parts: Parts, rng: random.Random, words: int) -> str:
    """A system message of about `words` words: instructions, retrieved text, known questions and answers, noise."""
    lines: list[str] = []
    length = 0
    while length < words:
        draw = rng.random()
        if draw < 0.6:
            line = fill(rng.choice(parts.system), parts, rng)
        elif draw < 0.75:
            line = unknown_question(parts, rng)
        elif draw < 0.9:
            entry = rng.choice(load().known)
            line = rng.choice((entry.answer, rng.choice(entry.ask), f"{rng.choice(entry.ask)} {entry.answer}"))
        else:
            line = " ".join(word(rng) for _ in range(rng.randint(1, 20)))
        lines.append(line)
        length += len(line.split()) + 1
    return rng.choice((" ", "\n", "\n\n")).join(lines) + rng.choice(("", "", " ", "  \n\n"))
