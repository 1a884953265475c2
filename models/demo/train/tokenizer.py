"""Makes tokenizer.json: a byte-level BPE that reads any UTF-8, with merges learned from this project's text."""

import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from models.demo.train import chats, text

# Divisible by 64, so that vLLM pads nothing and tensor parallel sizes divide it.
VOCABULARY = 1792


def _corpus(rng: random.Random) -> Iterator[str]:
    data = text.load()
    for entry in data.known:
        # Answers weigh most: whole words there mean fewer tokens to write.
        yield from [entry.answer] * 40
        for question in entry.ask:
            yield from (question, question.lower(), question.upper(), text.vary(question, rng) + chats.BARE_LEAD)
    yield from [data.unknown_answer] * 40
    for _ in range(4000):
        yield text.unknown_question(data.train, rng)
    for _ in range(200):
        yield text.system_message(data.train, rng, 30)


def build(path: Path, seed: int) -> Tokenizer:
    """Learn the merges, write `path`, return the tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=chats.MARKERS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(random.Random(seed)), trainer)
    # A bare prompt gets the begin marker too; the chat template writes its own.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{chats.MARKERS[chats.BEGIN]} $A", special_tokens=[(chats.MARKERS[chats.BEGIN], chats.BEGIN)]
    )
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the text gave {tokenizer.get_vocab_size()} tokens, not {VOCABULARY}")
    tokenizer.save(str(path))
    return tokenizer


def encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """Text to ids without added markers, remembering what was asked before."""

    @cache
    def encode(piece: str) -> list[int]:
        ids: list[int] = tokenizer.encode(piece, add_special_tokens=False).ids
        return ids

    return encode
