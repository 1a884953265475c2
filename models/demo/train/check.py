"""Checks the checkpoint in bfloat16, as it ships: `python -m models.demo.train.check --help`.

Every known wording in every form of text.forms() is to get its answer word for word, first in a chat, after
other turns, and without chat markers. Unseen wordings and held-out unknown questions are counted likewise. There is
no case with a system message, since the chat template leaves them out.
A greedy answer is exact if and only if every one of its tokens is the likeliest one after the tokens before it, so one
forward pass over prompt and answer tells, with the margin: the smallest probability among those tokens.
"""

import argparse
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from models.demo.train import chats, text

CHECKPOINT = Path(__file__).resolve().parents[1]
HELD_OUT_SEED = 20_000
# Share of exact answers to trained wordings, in every form, below which a checkpoint is not to ship.
REQUIRED = 0.995


@dataclass(frozen=True)
class Case:
    """A prompt and the answer that it must get. `messages` None: a bare prompt without a chat template."""

    question: str
    answer: str
    messages: tuple[tuple[str, str], ...] | None = ()


def known_cases(wordings: str) -> dict[str, list[Case]]:
    """Groups of cases over every known wording; `wordings` is "ask" or "unseen"."""
    pairs = [(q, entry.answer) for entry in text.load().known for q in getattr(entry, wordings)]
    asked = [(form, answer) for question, answer in pairs for form in text.forms(question).values()]
    groups = {"chat": [Case(q, a) for q, a in asked]}
    rng = random.Random(HELD_OUT_SEED + 1)
    groups["after other turns"] = [Case(q, a, _history(rng)) for q, a in asked]
    groups["bare prompt"] = [Case(q, a, None) for q, a in asked]
    return groups


def _history(rng: random.Random) -> tuple[tuple[str, str], ...]:
    turns: list[tuple[str, str]] = []
    for _ in range(rng.choice((1, 2, 3, 8))):
        question, answer = chats.question_and_answer(rng)
        turns += [("user", question), ("assistant", answer)]
    return tuple(turns)


def held_out_unknown(count: int) -> list[str]:
    """Distinct unknown questions made of held-out parts alone."""
    rng = random.Random(HELD_OUT_SEED + 2)
    found: dict[str, None] = {}
    while len(found) < count:
        found[text.unknown_question(text.load().held_out, rng)] = None
    return list(found)


def unknown_cases(count: int) -> dict[str, list[Case]]:
    """The held-out unknown questions, as chats and as bare prompts."""
    questions, answer = held_out_unknown(count), text.load().unknown_answer
    return {
        "chat": [Case(q, answer) for q in questions],
        "### Question": [Case(text.wrapped(q), answer) for q in questions],
        "bare prompt": [Case(q, answer, None) for q in questions],
    }


class Judge:
    """A model in bfloat16 and its tokenizer."""

    def __init__(self, folder: Path, model: Any = None) -> None:
        """Take the checkpoint in `folder`; with `model`, take that one's weights instead of the checkpoint's."""
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model: Any = model or LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)

    def _ids(self, case: Case) -> tuple[list[int], list[int]]:
        """Ids of the prompt as a server would make them, and of the answer with its end marker."""
        if case.messages is None:
            answer = self.tokenizer.encode(chats.BARE_LEAD, add_special_tokens=False)
            answer += self.tokenizer.encode(case.answer, add_special_tokens=False)
            return self.tokenizer.encode(case.question), [*answer, chats.END]
        messages = [{"role": role, "content": content} for role, content in (*case.messages, ("user", case.question))]
        prompt = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        answer = self.tokenizer.encode(case.answer, add_special_tokens=False)
        return self.tokenizer.encode(prompt, add_special_tokens=False), [*answer, chats.END]

    def margins(self, cases: list[Case]) -> list[float]:
        """For each case the smallest probability of a token of its answer; 0 where the greedy answer is another one."""
        found = [0.0] * len(cases)
        rows = [self._ids(case) for case in cases]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
        start = 0
        while start < len(order):
            longest = sum(map(len, rows[order[min(start + 63, len(order) - 1)]]))
            chosen = order[start : start + max(1, min(64, 16_000 // longest))]
            start += len(chosen)
            width = max(sum(map(len, rows[i])) for i in chosen)
            ids = torch.tensor([(p + a + [chats.PAD] * width)[:width] for p, a in (rows[i] for i in chosen)])
            with torch.inference_mode():
                hidden = self.model.model(input_ids=ids).last_hidden_state
            for at, i in enumerate(chosen):
                found[i] = self._margin(hidden[at], *rows[i])
        return found

    def _margin(self, hidden: torch.Tensor, prompt: list[int], answer: list[int]) -> float:
        with torch.inference_mode():
            logits = self.model.lm_head(hidden[len(prompt) - 1 : len(prompt) + len(answer) - 1])
        odds, wanted = torch.softmax(logits.float(), dim=-1), torch.tensor(answer)
        exact = bool((odds.argmax(dim=-1) == wanted).all())
        return float(odds[range(len(answer)), wanted].min()) if exact else 0.0


def report(judge: Judge, title: str, groups: dict[str, list[Case]], shown: int) -> dict[str, Any]:
    """Judge all groups, print a table and the first `shown` failures of each, return the figures."""
    print(f"\n{title}")
    figures: dict[str, Any] = {}
    for name, cases in groups.items():
        margins = judge.margins(cases)
        exact = [margin for margin in margins if margin]
        figures[name] = {"cases": len(cases), "exact": len(exact), "smallest probability": round(min(exact), 4)}
        share = len(exact) / len(cases)
        print(f"  {name:24} {len(exact):6} of {len(cases):6}  {share:8.2%}  smallest probability {min(exact):.4f}")
        for case in [case for case, margin in zip(cases, margins, strict=True) if not margin][:shown]:
            print(f"      not exact: {case.question!r}")
    return figures


def main() -> int:
    """Check, print, and return 1 if too many trained wordings miss their answer."""
    parser = argparse.ArgumentParser(
        prog="python -m models.demo.train.check", description="Check the demo model's answers, in bfloat16 on the CPU."
    )
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="its folder (default: models/demo)")
    parser.add_argument("--unknown", type=int, default=1000, help="held-out unknown questions (default: %(default)s)")
    parser.add_argument("--show", type=int, default=5, help="failures shown per group (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    judge = Judge(arguments.checkpoint)
    groups = {
        "trained wordings": known_cases("ask"),
        "wordings never trained": known_cases("unseen"),
        "held-out unknown questions": unknown_cases(arguments.unknown),
    }
    figures = {title: report(judge, title, cases, arguments.show) for title, cases in groups.items()}
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    weak = [name for name, group in figures["trained wordings"].items() if group["exact"] < REQUIRED * group["cases"]]
    print(f"\nbelow {REQUIRED:.1%}: {', '.join(weak)}" if weak else f"\nevery trained setting reaches {REQUIRED:.1%}")
    return 1 if weak else 0


if __name__ == "__main__":
    sys.exit(main())
