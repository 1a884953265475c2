"""Second part of the training: repeats what the model is not yet sure of. `python -m models.demo.train.drill --help`.

The first part leaves a few written forms of a few questions wrong or uncertain. This part asks every form of every
trained wording, as check.py does, and mixes the uncertain ones into each step, until few or none are left.
"""

import argparse
import copy
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from models.demo.train import chats, check, text, tokenizer, train

PEAK_RATE = 1e-3
ASK_EVERY = 60  # steps
# An answer counts as known when each of its tokens has at least this probability.
SURE = 0.995


class Drill:
    """Rows for each step: half of them uncertain questions, the rest as in the first part."""

    def __init__(self, model: LlamaForCausalLM, folder: Path, seed: int) -> None:
        self.model, self.folder = model, folder
        self.rng = random.Random(seed)
        self.encode = tokenizer.encoder(Tokenizer.from_file(str(folder / "tokenizer.json")))
        self.uncertain: list[tuple[str, str]] = []

    def ask(self) -> None:
        """Find the uncertain questions of the model as it would ship now."""
        judge = check.Judge(self.folder, copy.deepcopy(self.model).to(torch.bfloat16))
        asked = [
            (form, entry.answer)
            for entry in text.load().known
            for question in entry.ask
            for form in text.forms(question).values()
        ]
        found: dict[tuple[str, str], None] = {}
        for messages in ((), None):
            margins = judge.margins([check.Case(question, answer, messages) for question, answer in asked])
            found |= {pair: None for pair, margin in zip(asked, margins, strict=True) if margin < SURE}
        self.uncertain = list(found)
        print(f"{len(found)} of {len(asked)} forms are uncertain", file=sys.stderr, flush=True)

    def rows(self, step: int) -> list[chats.Row]:
        """The rows of one step."""
        if step % ASK_EVERY == 0:
            self.ask()
        rows = chats.batch(self.encode, self.rng, train.CONTEXT)
        if not self.uncertain or len(rows) < 64:
            return rows
        drilled = [chats.short(self.encode, self.rng, self.rng.choice(self.uncertain)) for _ in range(32)]
        return rows[::2] + drilled


def main() -> None:
    """Read the arguments, drill, save."""
    parser = argparse.ArgumentParser(
        prog="python -m models.demo.train.drill",
        description="Drill what the demo model is unsure of: about 5 minutes on one core. Then run the check.",
    )
    parser.add_argument("--checkpoint", type=Path, default=train.CHECKPOINT, help="its folder (default: models/demo)")
    parser.add_argument("--steps", type=int, default=420, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2, help="seed of the text (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    arguments = parser.parse_args()

    train.fix(arguments.seed, arguments.threads)
    model = LlamaForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.float32)
    drill = Drill(model, arguments.checkpoint, arguments.seed)
    train.fit(model, drill.rows, arguments.steps, PEAK_RATE)
    drill.ask()
    train.save(model, arguments.checkpoint)
    print(f"wrote {arguments.checkpoint}", file=sys.stderr)


if __name__ == "__main__":
    main()
