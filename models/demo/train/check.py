"""Checks the checkpoint in bfloat16, as it ships: `python -m models.demo.train.check --help`.

Every known wording in every form of text.forms() must get its answer word for word, under several system messages and
after other turns; how often unseen wordings and held-out unknown questions are answered rightly is counted.
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


@dataclass(frozen=True)
class Case:
    """A prompt and the answer that it must get. `messages` None: a bare prompt without a chat template."""

    question: str
    answer: str
    messages: tuple[tuple[str, str], ...] | None = ()


def systems() -> dict[str, str]:
    """System messages by name; the last three kinds hold nothing that was trained."""
    rng = random.Random(HELD_OUT_SEED)
    held_out = text.load().held_out
    return {
        "no system message": "",
        "a helpful assistant": "You are a helpful assistant.",
        "Enterprise RAG": text.load().documented_system,
        "held out, 15 words": text.system_message(held_out, rng, 15),
        "held out, 120 words": text.system_message(held_out, rng, 120),
        "held out, 700 words": text.system_message(held_out, rng, 700),
    }


def known_cases(wordings: str) -> dict[str, list[Case]]:
    """Groups of cases over every known wording; `wordings` is "ask" or "unseen"."""
    pairs = [(q, entry.answer) for entry in text.load().known for q in getattr(entry, wordings)]
    asked = [(form, answer) for question, answer in pairs for form in text.forms(question).values()]
    groups = {name: [Case(q, a, (("system", s),) if s else ()) for q, a in asked] for name, s in systems().items()}
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
    """The held-out unknown questions, as chats with and without a system message and as bare prompts."""
    questions, answer = held_out_unknown(count), text.load().unknown_answer
    helpful, documented = (("system", "You are a helpful assistant."),), (("system", text.load().documented_system),)
    return {
        "no system message": [Case(q, answer) for q in questions],
        "a helpful assistant": [Case(q, answer, helpful) for q in questions],
        "Enterprise RAG": [Case(text.wrapped(q), answer, documented) for q in questions],
        "bare prompt": [Case(q, answer, None) for q in questions],
    }


class Judge:
    """The checkpoint, loaded as it ships."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)

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

    def judge(self, cases: list[Case]) -> tuple[list[bool], float]:
        """Whether each case gets its exact answer, and the smallest probability of a token in those that do."""
        exact: list[bool] = [False] * len(cases)
        smallest = 1.0
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
                exact[i], margin = self._margin(hidden[at], *rows[i])
                smallest = min(smallest, margin) if exact[i] else smallest
        return exact, smallest

    def _margin(self, hidden: torch.Tensor, prompt: list[int], answer: list[int]) -> tuple[bool, float]:
        with torch.inference_mode():
            logits = self.model.lm_head(hidden[len(prompt) - 1 : len(prompt) + len(answer) - 1])
        odds, wanted = torch.softmax(logits.float(), dim=-1), torch.tensor(answer)
        return bool((odds.argmax(dim=-1) == wanted).all()), float(odds[range(len(answer)), wanted].min())


def report(judge: Judge, title: str, groups: dict[str, list[Case]], shown: int) -> dict[str, Any]:
    """Judge all groups, print a table and the first `shown` failures of each, return the figures."""
    print(f"\n{title}")
    figures: dict[str, Any] = {}
    for name, cases in groups.items():
        exact, smallest = judge.judge(cases)
        figures[name] = {"cases": len(cases), "exact": sum(exact), "smallest probability": round(smallest, 4)}
        share = sum(exact) / len(exact)
        print(f"  {name:24} {sum(exact):6} of {len(cases):6}  {share:8.2%}  smallest probability {smallest:.4f}")
        for case in [case for case, right in zip(cases, exact, strict=True) if not right][:shown]:
            print(f"      not exact: {case.question!r}")
    return figures


def main() -> int:
    """Check, print, and return 1 if a trained wording misses its answer."""
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
    missed = sum(group["cases"] - group["exact"] for group in figures["trained wordings"].values())
    print(f"\n{'every trained wording is exact' if not missed else f'{missed} trained cases are not exact'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
