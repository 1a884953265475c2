"""The text that the demo model is trained and checked on."""

import random
from collections import Counter

import pytest

from models.demo.train import chats, text

DATA = text.load()


def test_each_wording_asks_for_one_answer_only() -> None:
    owners = Counter(form for entry in DATA.known for form in {text.plain(q) for q in entry.ask + entry.unseen})
    assert [form for form, count in owners.items() if count > 1] == []


def test_each_answer_has_several_wordings_and_one_or_more_that_are_never_trained() -> None:
    assert len(DATA.known) >= 60
    for entry in DATA.known:
        assert len(entry.ask) >= 5, entry.answer
        assert entry.unseen, entry.answer
        assert not {text.plain(q) for q in entry.ask} & {text.plain(q) for q in entry.unseen}, entry.answer


def test_the_questions_of_the_documented_requests_are_known() -> None:
    wordings = {q for entry in DATA.known for q in entry.ask}
    assert {"What is Deep Learning?", "Who are you?"} <= wordings


@pytest.mark.parametrize("part", ["names", "places", "topics", "lines", "system"])
def test_held_out_parts_are_not_trained(part: str) -> None:
    trained = {text.plain(entry) for entry in getattr(DATA.train, part)}
    assert trained.isdisjoint(text.plain(entry) for entry in getattr(DATA.held_out, part))


@pytest.mark.parametrize("parts", [DATA.train, DATA.held_out], ids=["trained", "held out"])
def test_an_unknown_question_is_never_a_known_one(parts: text.Parts) -> None:
    rng = random.Random(3)
    drawn = {text.plain(text.unknown_question(parts, rng)) for _ in range(20_000)}
    assert drawn.isdisjoint(text.plain_known())
    assert len(drawn) > 8_000


def test_no_place_in_a_pattern_stays_empty() -> None:
    rng = random.Random(4)
    for parts in (DATA.train, DATA.held_out):
        filled = [text.fill(pattern, parts, rng) for pattern in parts.templates + parts.system]
        assert [line for line in filled if "{" in line] == []


def test_a_seed_fixes_the_rows() -> None:
    def encode(piece: str) -> list[int]:
        return list(piece.encode())

    first, again, other = (chats.batch(encode, random.Random(seed), longest=2000) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_a_row_learns_the_answer_and_its_end_and_nothing_else() -> None:
    row = chats.chat(lambda piece: list(piece.encode()), random.Random(9), system_words=5, history_tokens=0)
    learned = bytes(token for token, learn in zip(row.ids, row.learn, strict=True) if learn)
    answers = {entry.answer for entry in DATA.known} | {DATA.unknown_answer}
    assert learned[-1] == chats.END
    assert learned[:-1].decode() in answers
